//! Names: what is none, what is taken, what would be something else elsewhere.

use ironpage_tests::Cluster;

#[test]
fn bad_names_are_refused_and_nothing_is_made() {
    let cluster = Cluster::up("branch-names");
    let long = "x".repeat(64);
    let bad = [
        "",
        " ",
        ".",
        "..",
        "../main",
        "a/b",
        "a b",
        "a\nb",
        "ä",
        "名前",
        "'; drop table t; --",
        "$(id)",
        "`id`",
        "a%2Fb",
        "%00",
        "a?b=c",
        "a#b",
        "_a",
        "main ",
        "\u{202e}niam",
        "\"",
        "a\\b",
        long.as_str(),
    ];
    for name in bad {
        let said = cluster.must_fail(1, &["branch", "create", name]);
        assert!(said.contains("cannot be a name"), "{name:?}: {said}");
        let said = cluster.must_fail(1, &["branch", "rename", "main", name]);
        assert!(said.contains("cannot be a name"), "{name:?}: {said}");
        cluster.must_fail(1, &["tenant", "create", name]);
        // As names of what should be there they reach the pageserver as they are, and nothing else.
        for arguments in
            [&["branch", "delete", name] as &[&str], &["branch", "create", "ok", "--from", name], &["branch", "reset", name]]
        {
            let said = cluster.must_fail(1, arguments);
            assert!(!said.contains("no answer"), "{name:?}: {said}");
        }
    }
    cluster.must_fail(2, &["branch", "create", "-a"]);
    assert_eq!(cluster.status().branches.len(), 1);

    let longest = "x".repeat(63);
    for name in ["a", "0", "A-b_9", longest.as_str()] {
        cluster.must(&["branch", "create", name]);
        let said = cluster.must_fail(1, &["branch", "create", name]);
        assert!(said.contains(name) && said.contains("exists") || said.contains("already"), "{said}");
    }
    // Names are told apart by case.
    cluster.must(&["branch", "create", "a-B_9"]);
    let said = cluster.must_fail(1, &["branch", "create", "b", "--from", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    let said = cluster.must_fail(1, &["--tenant", "nobody", "branch", "create", "b"]);
    assert!(said.contains("nobody"), "{said}");
    let said = cluster.must_fail(1, &["branch", "rename", "a", "0"]);
    assert!(said.contains("'0'"), "{said}");
}

#[test]
fn of_creates_of_one_name_at_once_one_wins() {
    let cluster = Cluster::up("branch-race");
    for round in 0..3 {
        let name = format!("wanted{round}");
        let won = std::thread::scope(|scope| {
            let (cluster, name) = (&cluster, name.as_str());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(move || cluster.ironpage(&["branch", "create", name]))).collect();
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for lost in outcomes.iter().filter(|output| !output.status.success()) {
                let said = String::from_utf8_lossy(&lost.stderr);
                assert!(lost.status.code() == Some(1) && said.contains(name), "{said}");
            }
            outcomes.iter().filter(|output| output.status.success()).count()
        });
        assert_eq!(won, 1);
    }
    assert_eq!(cluster.status().branches.len(), 4);
}
