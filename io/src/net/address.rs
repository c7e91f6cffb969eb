//! Socket addresses: from text, and as the kernel wants them.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use crate::error::{Errno, IoError};

/// The first address `address` resolves to. A number resolves at once; a host name asks the resolver,
/// which may block the core.
pub(super) fn resolve<A: ToSocketAddrs + Display>(address: &A) -> Result<SocketAddr, IoError> {
    let unresolved = |reason: &str| IoError::Address { address: address.to_string().into(), reason: reason.into() };
    match address.to_socket_addrs() {
        Ok(mut addresses) => addresses.next().ok_or_else(|| unresolved("no address")),
        Err(error) => Err(unresolved(&error.to_string())),
    }
}

/// An address in the kernel's layout, shared so that it stays in place.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) storage: Rc<libc::sockaddr_storage>,
    pub(super) len: libc::socklen_t,
}

fn raw<T>(address: T) -> Raw {
    const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
    const { assert!(align_of::<T>() <= align_of::<libc::sockaddr_storage>()) };
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: storage is large and aligned enough, asserted above.
    unsafe { std::ptr::from_mut(&mut storage).cast::<T>().write(address) };
    Raw { storage: Rc::new(storage), len: size_of::<T>() as libc::socklen_t }
}

pub(super) fn tcp(address: SocketAddr) -> Raw {
    match address {
        SocketAddr::V4(address) => raw(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
            sin_zero: [0; 8],
        }),
        SocketAddr::V6(address) => raw(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: address.port().to_be(),
            sin6_flowinfo: address.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
            sin6_scope_id: address.scope_id(),
        }),
    }
}

pub(super) fn unix(path: &Path) -> Result<Raw, Errno> {
    let bytes = path.as_os_str().as_bytes();
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    // One byte for the terminator.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(raw(address))
}
