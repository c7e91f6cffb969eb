-- One of each kind of thing that storage knows. Run in autocommit.
create extension amcheck;
create table kinds (id bigserial primary key, word text, numbers int[], place point, span int4range, day date);
insert into kinds (word, numbers, place, span, day)
    select md5(g::text), array[g % 10, g % 100, g], point(g % 200, g / 200), int4range(g, g + 5), date '2020-01-01' + g
    from generate_series(1, 20000) g;
create index kinds_hash on kinds using hash (word);
create index kinds_gin on kinds using gin (numbers);
create index kinds_gist on kinds using gist (span);
create index kinds_spgist on kinds using spgist (place);
create index kinds_brin on kinds using brin (day) with (pages_per_range = 4);
create index kinds_btree on kinds (day, id) include (word);
delete from kinds where id % 7 = 0;
update kinds set word = word || 'x' where id % 11 = 0;
vacuum (analyze) kinds;
create table toasted (id int primary key, long text, packed text);
alter table toasted alter long set storage external;
insert into toasted select g, repeat(md5(g::text), 400), repeat(md5(g::text), 100) from generate_series(1, 200) g;
create sequence counter increment 7 cache 20;
select count(nextval('counter')) from generate_series(1, 100);
select lo_from_bytea(900000 + g, convert_to(repeat(md5(g::text), 200), 'UTF8')) from generate_series(1, 20) g;
create materialized view summary as select id % 10 as digit, count(*) from kinds group by 1;
create table parted (id int, part int) partition by list (part);
create table parted_1 partition of parted for values in (1);
create table parted_2 partition of parted for values in (2);
insert into parted select g, 1 + g % 2 from generate_series(1, 1000) g;
create table shared_locks (id int primary key, n int);
insert into shared_locks select g, 0 from generate_series(1, 500) g;
create table prepared_here (n int);
