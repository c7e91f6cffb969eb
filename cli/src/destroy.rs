//! `ironpage destroy`: the cluster and all its data are gone.

use crate::cluster::{Cluster, LOCK_FILE};
use crate::daemons;
use crate::down;
use crate::endpoint::Stop;
use crate::error::Result;
use crate::files;
use crate::progress;
use std::fs;
use std::path::PathBuf;

/// Removes what `up` and its processes made, and the directory if nothing else is in it.
pub fn destroy(cluster: &Cluster) -> Result<()> {
    down::stop_all(cluster, Stop::Immediate)?;
    let compute_dir = &cluster.settings.compute_dir;
    let mut ours: Vec<PathBuf> = daemons::all(cluster).into_iter().map(|daemon| daemon.dir).collect();
    ours.extend(["endpoints", "template"].map(|name| compute_dir.join(name)));
    ours.extend([cluster.logs(), cluster.run(), cluster.dir.join("follow")]);
    if cluster.computes_elsewhere() {
        ours.push(compute_dir.clone());
    }
    // Without this file the rest is a heap of files of ours: it goes last, so that a destroy that was cut short can be repeated.
    ours.extend(["cluster.json", LOCK_FILE].map(|name| cluster.dir.join(name)));
    for path in ours {
        files::remove_if_there(&path)?;
    }
    match fs::remove_dir(&cluster.dir) {
        Ok(()) => progress::line(&format!("{} is gone", cluster.dir.display())),
        Err(_) => progress::line(&format!("the cluster is gone; {} holds other files and stays", cluster.dir.display())),
    }
    Ok(())
}
