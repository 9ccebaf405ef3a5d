//! Snapshots: only a newer one replaces another.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{Sequence, Timestamp};
use angzarr_relay::storage::{Consistency, Snapshot, SnapshotPut, SnapshotStore, StorageError};

use crate::embedded::{root, tables};

crate::scenarios!(only_a_newer_snapshot_replaces_one);

async fn only_a_newer_snapshot_replaces_one(aws: &AwsClients, prefix: &str) {
    let store = SnapshotStore::new(aws, &tables(aws, prefix).await.snapshots);
    let root = root("1");
    let snapshot = |sequence: u64, bytes: usize| Snapshot {
        sequence: Sequence(sequence),
        state: vec![7; bytes].into(),
        created_at: Timestamp::from_unix_millis(1_000),
    };
    assert_eq!(store.get(&root, Consistency::Strong).await.unwrap(), None);
    assert_eq!(store.put(&root, &snapshot(5, 3)).await.unwrap(), SnapshotPut::Written);
    for not_newer in [5, 4] {
        let answer = store.put(&root, &snapshot(not_newer, 4)).await.unwrap();
        assert_eq!(answer, SnapshotPut::NotNewer { durable: Sequence(5) });
    }
    assert_eq!(store.get(&root, Consistency::Strong).await.unwrap(), Some(snapshot(5, 3)));
    assert_eq!(store.put(&root, &snapshot(6, 4)).await.unwrap(), SnapshotPut::Written);
    assert_eq!(store.get(&root, Consistency::Eventual).await.unwrap(), Some(snapshot(6, 4)));
    assert!(matches!(store.put(&root, &snapshot(7, 400 << 10)).await, Err(StorageError::Invalid { .. })));
}
