//! Checks that begin and end with their servers.

use std::net::SocketAddr;

use tokio::time::timeout;

use super::*;
use crate::net::clock;
use crate::proxy::roster::{Origin, ServerSpec};

const PATIENCE: Duration = Duration::from_secs(10);

fn config() -> Config {
    let text = "[proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"127.0.0.1:1\"]\n";
    crate::config::load(text).unwrap()
}

#[tokio::test]
async fn a_server_that_is_added_is_probed_and_one_that_is_removed_no_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let config = config();
    let proxy = config.proxies.first().unwrap();
    let now = clock::now();
    let farm = Arc::new(Farm::new(proxy));
    let mut board = Board::new(&config, now);
    let (sender, mut findings) = mpsc::channel(1);
    let farms = [Arc::clone(&farm)];
    let mut watchers = Watchers::begin(&config, &farms, vec![vec![]], vec![vec![]], (sender, None));
    let spec = ServerSpec {
        name: "new".into(),
        address,
        check_address: address,
        ..proxy.servers.first().unwrap().clone()
    };
    let place = farm.add(&spec, Origin::Operator).unwrap();
    watchers.follow(0, proxy, &farm, &mut board, now);
    let finding = loop {
        let finding = timeout(PATIENCE, findings.recv()).await.unwrap().unwrap();
        if finding.server == place {
            break finding;
        }
    };
    assert!(finding.health.is_ready());
    board.record(&finding);
    assert_eq!(board.servers(0)[place].as_ref().unwrap().up, Some(true));
    // Nothing has changed: the task goes on.
    watchers.follow(0, proxy, &farm, &mut board, now);
    let task = match &watchers.watcher_at(0, place).unwrap().state {
        State::Running(task) => task.clone(),
        other @ (State::Off | State::Again(_)) => panic!("{other:?}"),
    };
    assert!(!task.is_finished());
    assert!(farm.remove(place));
    watchers.follow(0, proxy, &farm, &mut board, now);
    assert!(board.servers(0)[place].is_none());
    assert!(watchers.watcher_at(0, place).is_none());
    let ended = async {
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}
