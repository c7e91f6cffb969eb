//! Many branches, and branches of branches.

use super::{Ledger, Load, assert_ledger, check_on, start, stop, with_pgbench};
use crate::amount;
use ironpage_tests::Cluster;

#[test]
fn fifty_branches_at_once() {
    let cluster = with_pgbench("branch-fifty");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(50);
    let load = Load::on_main(&cluster);
    let made: Vec<_> = std::thread::scope(|scope| {
        let cluster = &cluster;
        let threads: Vec<_> = (0..50)
            .map(|number| scope.spawn(move || cluster.json(&["branch", "create", &format!("b{number}")])["lsn"].clone()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 50);
    let listed = cluster.json(&["branch", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 51);
    assert_eq!(cluster.status().branches.len(), 51);
    // Some of them run, beside each other.
    let some = ["b0", "b7", "b23", "b49"];
    for name in some {
        start(&cluster, name);
        cluster.sql_on(name, &format!("insert into ledger values (1000000, '{name}')"));
    }
    for name in some {
        assert_eq!(cluster.sql_on(name, "select filler from ledger where number = 1000000"), name);
        assert_eq!(cluster.sql_on(name, "select count(*) from ledger"), "51");
        check_on(&cluster, name);
        stop(&cluster, name);
    }
    drop(load);
    assert_eq!(cluster.sql("select count(*) from ledger"), "50");
    for number in 0..50 {
        cluster.must(&["branch", "delete", &format!("b{number}")]);
    }
    assert_eq!(cluster.status().branches.len(), 1);
    check_on(&cluster, "main");
}

#[test]
fn branches_of_branches_ten_deep() {
    let cluster = Cluster::up("branch-depth");
    let depth = amount(10, 30);
    let mut last = "main".to_string();
    let mut ledger = Ledger::on(&cluster, "main");
    for level in 1..=depth {
        ledger.commits(3);
        let name = format!("level{level}");
        cluster.must(&["branch", "create", &name, "--from", &last]);
        start(&cluster, &name);
        // Where its parent ends and its own WAL begins, what is written goes on.
        let commits = std::mem::take(&mut ledger.commits);
        ledger = Ledger::on(&cluster, &name);
        ledger.commits = commits;
        if last != "main" {
            stop(&cluster, &last);
        }
        last = name;
    }
    assert_ledger(&cluster, &last, 3 * depth);
    ledger.commits(1);
    // From the layers and WAL of all its ancestors, with an empty cache.
    stop(&cluster, &last);
    start(&cluster, &last);
    assert_ledger(&cluster, &last, 3 * depth + 1);
    assert_ledger(&cluster, "main", 3);
    let tree = cluster.must(&["branch", "list", "--tree"]);
    assert!(tree.contains(&format!("{}└─ level{depth}", "   ".repeat(depth as usize - 1))), "{tree}");
}
