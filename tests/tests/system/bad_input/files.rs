//! Damaged files: an error that names the file, and all else goes on.

use super::{MINUTE, assert_no_panic, commits_survive, log_of, timeline_dir, up_says, wait_logged};
use ironpage_tests::{Cluster, Outcome, Process};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file, and its bytes as they were.
struct Kept {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Kept {
    fn read(path: PathBuf) -> Kept {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Kept { path, bytes }
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    fn flip(&self, offsets: &[usize]) {
        let mut bytes = self.bytes.clone();
        offsets.iter().for_each(|at| bytes[*at] ^= 0x20);
        fs::write(&self.path, bytes).unwrap();
    }

    fn cut(&self, length: usize) {
        fs::write(&self.path, &self.bytes[..length]).unwrap();
    }

    fn restore(&self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }
}

fn layers(cluster: &Cluster) -> Vec<Kept> {
    let dir = timeline_dir(&cluster.nth("pageserver", 0).data_dir).join("layers");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the import left layer files");
    paths.into_iter().map(Kept::read).collect()
}

/// Where in the layers these bytes stand.
fn find(layers: &[Kept], page: &[u8]) -> Vec<(usize, usize)> {
    let blocks = |bytes: &[u8]| (0..bytes.len().saturating_sub(page.len() - 1)).step_by(4096).collect::<Vec<_>>();
    let here = |(number, layer): (usize, &Kept)| {
        let at = blocks(&layer.bytes).into_iter().filter(|at| &layer.bytes[*at..*at + page.len()] == page);
        at.map(|at| (number, at)).collect::<Vec<_>>()
    };
    layers.iter().enumerate().flat_map(here).collect()
}

fn restart_pageserver(cluster: &Cluster, change: impl FnOnce()) {
    cluster.kill(&cluster.nth("pageserver", 0));
    change();
    cluster.start();
}

/// Without its local copies: everything is read from the pageserver again.
fn restart_postgres(cluster: &Cluster) {
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
}

#[test]
fn a_flipped_page_of_a_layer_is_named_and_the_others_are_served() {
    let cluster = Cluster::up("bad-layer");
    cluster.sql("create table acked(i bigint primary key)");
    let right = cluster.sql("select count(*), sum(length(description)) from pg_description");
    // A page that no start needs, in the middle of a catalog of its own.
    let file = cluster.process("postgres", "main").data_dir.join(cluster.sql("select pg_relation_filepath('pg_description')"));
    let page = fs::read(&file).unwrap()[3 * 8192..4 * 8192].to_vec();
    let layers = layers(&cluster);
    let places = find(&layers, &page);
    assert!(!places.is_empty(), "block 3 of pg_description stands in no layer as it is");
    restart_pageserver(&cluster, || {
        for (number, layer) in layers.iter().enumerate() {
            let here: Vec<_> = places.iter().filter(|place| place.0 == number).map(|place| place.1 + 5000).collect();
            layer.flip(&here);
        }
    });
    restart_postgres(&cluster);
    let error = cluster.try_sql("select count(*), sum(length(description)) from pg_description").unwrap_err();
    let named = places.iter().any(|place| error.contains(layers[place.0].name()));
    assert!(named && error.contains("block 3 "), "{error}");
    let pageserver = cluster.nth("pageserver", 0);
    wait_logged(&pageserver, &["WARN", ".layer"]);
    // Its neighbours, and everything else.
    assert_ne!(cluster.sql("select count(*) from pg_description where ctid < '(3,0)'"), "0");
    assert_ne!(cluster.sql("select count(*) from pg_class, pg_attribute where attrelid = pg_class.oid"), "0");
    commits_survive(&cluster, 1, || {
        let again = cluster.try_sql("select count(*) from pg_description").unwrap_err();
        assert!(again.contains(".layer"), "{again}");
    });
    assert_eq!(cluster.nth("pageserver", 0).pid, pageserver.pid);

    restart_pageserver(&cluster, || layers.iter().for_each(Kept::restore));
    assert_eq!(cluster.sql("select count(*), sum(length(description)) from pg_description"), right);
    assert_no_panic(&cluster);
}

/// Either the pageserver does not start, or the endpoint does not, or reads fail: each time the file is named.
fn assert_damage_is_named(cluster: &Cluster, kept: &Kept, what: &str) {
    if up_says(cluster, kept.name()) {
        return;
    }
    let every_catalog = "do $$ declare r record; begin for r in select oid::regclass t from pg_class where relkind = 'r' \
                         loop execute format('select count(*) from %s', r.t); end loop; end $$";
    match cluster.session().run(every_catalog, MINUTE) {
        Outcome::Failed(error) => assert!(error.contains(kept.name()), "{what}: {error}"),
        other => panic!("{what}: nobody noticed: {other:?}"),
    }
}

#[test]
fn damaged_layers_are_named_wherever_the_damage_is() {
    let cluster = Cluster::up("bad-layers");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("insert into acked select generate_series(1, 1000)");
    cluster.must(&["down"]);
    let layers = layers(&cluster);
    for (number, layer) in layers.iter().enumerate() {
        let length = layer.bytes.len();
        // Header and fences, runs, images, index, the end; a tear, a stub, nothing.
        type Damage<'a> = Box<dyn Fn() + 'a>;
        let mut damages: Vec<(String, Damage<'_>)> = Vec::new();
        if number == 0 {
            damages.push(("nothing left".into(), Box::new(|| layer.cut(0))));
            damages.push(("cut by a block".into(), Box::new(|| layer.cut(length - 4096))));
        }
        damages.push(("cut in the middle".into(), Box::new(|| layer.cut(length / 2))));
        damages.push(("header flipped".into(), Box::new(|| layer.flip(&[9]))));
        damages.push((
            "many bytes flipped".into(),
            Box::new(|| layer.flip(&(0..64).map(|n| length / 64 * n + 77).collect::<Vec<_>>())),
        ));
        for (what, damage) in damages {
            damage();
            assert_damage_is_named(&cluster, layer, &format!("{}: {what}", layer.name()));
            cluster.must(&["down"]);
            layer.restore();
        }
    }
    cluster.start();
    assert_eq!(cluster.sql("select count(*), sum(i) from acked"), "1000|500500");
    assert_no_panic(&cluster);
}

#[test]
fn a_damaged_manifest_keeps_the_pageserver_down_and_is_named() {
    let cluster = Cluster::up("bad-manifest");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("insert into acked values (1)");
    let pageserver = cluster.nth("pageserver", 0);
    let manifest = Kept::read(timeline_dir(&pageserver.data_dir).join("manifest"));
    for damage in [0, manifest.bytes.len() / 2, manifest.bytes.len() - 1] {
        cluster.kill(&cluster.nth("pageserver", 0));
        manifest.flip(&[damage]);
        let output = cluster.ironpage(&["up", "--detach"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(manifest.path.to_str().unwrap()), "{said}");
        manifest.restore();
        cluster.start();
    }
    // A layer that the manifest names and nobody can find.
    let layer = layers(&cluster).swap_remove(0);
    cluster.kill(&cluster.nth("pageserver", 0));
    fs::remove_file(&layer.path).unwrap();
    let output = cluster.ironpage(&["up", "--detach"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(layer.name()), "{said}");
    layer.restore();
    cluster.start();
    assert_eq!(cluster.sql("select count(*) from acked"), "1");
    assert_no_panic(&cluster);
}

fn control_of(safekeeper: &Process) -> Kept {
    Kept::read(timeline_dir(&safekeeper.data_dir).join("control"))
}

#[test]
fn a_damaged_control_file_takes_out_one_safekeeper_and_is_named() {
    let cluster = Cluster::up("bad-control");
    cluster.sql("create table acked(i bigint primary key)");
    let (one, other) = (cluster.nth("safekeeper", 0), cluster.nth("safekeeper", 1));
    let mut kept = None;
    commits_survive(&cluster, 1, || {
        cluster.kill(&one);
        let control = control_of(&one);
        control.flip(&[70]);
        cluster.start();
        wait_logged(&one, &["ERROR", control.path.to_str().unwrap(), "CRC"]);
        kept = Some(control);
    });
    // Two of three are no quorum, and whoever asks is told why.
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.kill(&other);
    let second = control_of(&other);
    second.cut(50);
    assert!(up_says(&cluster, second.path.to_str().unwrap()));
    cluster.must(&["down"]);
    second.restore();
    cluster.start();
    // The file of the first is as old as its WAL: it comes back and catches up.
    commits_survive(&cluster, 2, || {
        cluster.kill(&cluster.nth("safekeeper", 0));
        kept.iter().for_each(Kept::restore);
        cluster.start();
        cluster.wait_safekeepers_level(Duration::from_secs(30));
        cluster.kill(&cluster.nth("safekeeper", 2));
    });
    cluster.start();
    assert_no_panic(&cluster);
}

#[test]
fn damaged_wal_of_one_safekeeper_is_never_served() {
    let cluster = Cluster::up("bad-wal");
    cluster.sql("create table acked(i bigint primary key)");
    let told = commits_survive(&cluster, 1, || {});
    cluster.must(&["down"]);
    let one = cluster.nth("safekeeper", 0);
    let segment = timeline_dir(&one.data_dir).join("000000010000000000000002");
    let segment = Kept::read(segment);
    // The first segment of its own, which an import begins: in the midst of what it holds.
    let end = segment.bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let begin = 0;
    assert!(end > begin + 20_000, "the first segment ends at {end}");
    segment.flip(&[(begin + end) / 2]);
    cluster.start();
    crate::crash::assert_all_there(&cluster, &told);
    commits_survive(&cluster, 2, || {
        // All pages from WAL once more: what does not decode is taken from another safekeeper.
        restart_pageserver(&cluster, || {});
    });
    restart_postgres(&cluster);
    crate::crash::assert_all_there(&cluster, &told);
    let log = log_of(Path::new(&cluster.nth("pageserver", 0).log));
    assert!(!log.contains("ingest stopped"), "{log}");
    assert_no_panic(&cluster);
}
