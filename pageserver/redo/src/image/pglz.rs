//! Postgres's own compression (common/pg_lzcompress.c).

use crate::error::RedoError;

const DAMAGED: RedoError = RedoError::Delta("a page image does not decompress");

/// pglz_decompress with check_complete: fills `out`, and takes all of `bytes` for it.
pub fn decompress(bytes: &[u8], out: &mut [u8]) -> Result<(), RedoError> {
    let mut input = bytes.iter().copied();
    let mut length = 0;
    while length < out.len() {
        let mut control = input.next().ok_or(DAMAGED)?;
        for _ in 0..8 {
            // An item begins only while there is input; the check at the end tells whether that was enough.
            if length == out.len() || input.len() == 0 {
                break;
            }
            if control & 1 == 0 {
                *out.get_mut(length).ok_or(DAMAGED)? = input.next().ok_or(DAMAGED)?;
                length += 1;
            } else {
                let (first, second) = (input.next().ok_or(DAMAGED)?, input.next().ok_or(DAMAGED)?);
                let distance = usize::from(first & 0xF0) << 4 | usize::from(second);
                let mut count = usize::from(first & 0x0F) + 3;
                if count == 18 {
                    count += usize::from(input.next().ok_or(DAMAGED)?);
                }
                let count = count.min(out.len() - length);
                repeat(out, length, distance, count)?;
                length += count;
            }
            control >>= 1;
        }
    }
    if input.len() == 0 { Ok(()) } else { Err(DAMAGED) }
}

/// Writes `count` bytes at `at`, each the one `distance` before it.
fn repeat(out: &mut [u8], at: usize, distance: usize, count: usize) -> Result<(), RedoError> {
    if distance == 0 || distance > at {
        return Err(DAMAGED);
    }
    let mut done = 0;
    // What is there already repeats: each step copies all of it, so that the steps double.
    while done < count {
        let step = (distance + done).min(count - done);
        out.copy_within(at - distance..at - distance + step, at + done);
        done += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_matches() {
        let mut out = [0; 5];
        decompress(&[0, b'a', b'b', b'c', b'd', b'e'], &mut out).unwrap();
        assert_eq!(&out, b"abcde");
        // Five literals, then a match of 16 from 4 back: the example in pg_lzcompress.c.
        let mut out = [0; 21];
        decompress(&[0b10_0000, b'1', b'1', b'2', b'3', b'4', 0x0D, 4], &mut out).unwrap();
        assert_eq!(&out, b"112341234123412341234");
        // A match longer than 18 has a byte more.
        let mut out = [0; 41];
        decompress(&[0b10, b'x', 0x0F, 1, 22], &mut out).unwrap();
        assert_eq!(out, [b'x'; 41]);
    }

    #[test]
    fn damage_is_an_error() {
        let mut out = [0; 8];
        for bytes in [&[][..], &[0, 1, 2], &[1, 0, 0], &[1, 5, 3], &[0b10, 7, 0x0F, 1], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(decompress(bytes, &mut out), Err(DAMAGED), "{bytes:?}");
        }
    }
}
