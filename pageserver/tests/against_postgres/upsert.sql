\set id random(1, 12)
\set other random(1, 20)
INSERT INTO upserted VALUES (10000 + :id, 0) ON CONFLICT (id) DO UPDATE SET n = upserted.n + 1;
DELETE FROM upserted WHERE id = 10000 + (:id * 7) % 12;
BEGIN;
SELECT n FROM locked WHERE id = :other FOR KEY SHARE;
UPDATE locked SET n = n + 1 WHERE id = (SELECT id FROM locked WHERE id <> :other ORDER BY random() LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED);
SELECT n FROM locked WHERE id = (:other + 3) % 20 + 1 FOR KEY SHARE;
END;
