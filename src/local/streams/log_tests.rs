//! The log against a plain list of records.

use super::*;
use proptest::prelude::*;

fn shard(index: u32) -> ShardName {
    ShardName::new(1, index)
}

fn number(upstream: u64) -> Number {
    Number::of_upstream(&upstream.to_string()).unwrap()
}

fn record(index: u32, upstream: u64, size: usize) -> LogRecord {
    LogRecord { shard: shard(index), number: number(upstream), at_unix_millis: upstream * 10, size, json: "{}".into() }
}

fn read(log: &Log, index: u32, after: Number, limit: usize) -> (Vec<Number>, bool) {
    let page = log.page(shard(index), after, limit);
    (page.records.iter().map(|record| record.number).collect(), page.is_last)
}

#[test]
fn a_page_ends_at_its_bounds() {
    let mut log = Log::new(usize::MAX);
    (1..=1500).for_each(|upstream| log.append(record(0, upstream, 10)));
    assert_eq!(read(&log, 0, Number::ZERO, 2000).0.len(), PAGE_RECORDS_MAX);
    assert_eq!(read(&log, 0, number(1000), 1000), ((1001..=1500).map(number).collect(), true));
    assert_eq!(read(&log, 0, number(1), 2), (vec![number(2), number(3)], false));
    assert_eq!(read(&log, 1, Number::ZERO, 1000), (vec![], true));
    let mut large = Log::new(usize::MAX);
    for (upstream, size) in [(1, PAGE_BYTES_MAX * 2), (2, PAGE_BYTES_MAX / 2), (3, PAGE_BYTES_MAX / 2), (4, 1)] {
        large.append(record(0, upstream, size));
    }
    assert_eq!(
        read(&large, 0, Number::ZERO, 1000),
        (vec![number(1)], false),
        "one record is a page, whatever its size"
    );
    assert_eq!(read(&large, 0, number(1), 1000), (vec![number(2), number(3)], false));
}

#[test]
fn what_is_trimmed_is_told_by_the_horizon() {
    let mut log = Log::new(usize::MAX);
    (1..=6).for_each(|upstream| log.append(record(u32::from(upstream % 2 == 0), upstream, 10)));
    log.trim_shard(shard(0), number(3));
    assert_eq!((log.horizon(shard(0)), log.horizon(shard(1))), (number(3), Number::ZERO));
    assert_eq!(read(&log, 0, number(3), 9).0, [number(5)]);
    log.trim_old(30);
    assert_eq!((log.horizon(shard(0)), log.horizon(shard(1))), (number(3), number(2)));
    assert_eq!(log.count(shard(1)), 2);
    log.trim_old(u64::MAX);
    assert_eq!((log.horizon(shard(0)), log.horizon(shard(1)), log.bytes), (number(5), number(6), 0));
    log.forget(shard(0));
    log.begin_behind(number(9));
    assert_eq!((log.horizon(shard(0)), log.horizon(shard(1))), (number(9), number(9)));
}

#[test]
fn the_log_keeps_to_its_bound() {
    let mut log = Log::new(10_000);
    for upstream in 1..=10_000 {
        log.append(record(0, upstream, 10));
        assert!(log.bytes <= 10_000);
    }
    assert!(log.count(shard(0)) > 50);
}

proptest! {
    #[test]
    fn pages_bring_what_a_plain_list_has(
        shards in proptest::collection::vec(0_u32..4, 0..60),
        trims in proptest::collection::vec((0_u32..4, 0_u64..70), 0..4),
        before in 0_u64..400,
        limit in 1_usize..20,
    ) {
        let (mut log, mut plain) = (Log::new(usize::MAX), Vec::new());
        for (upstream, index) in (1..).zip(&shards) {
            log.append(record(*index, upstream, 10));
            plain.push((*index, upstream));
        }
        for (index, through) in trims {
            log.trim_shard(shard(index), number(through));
            plain.retain(|(of, upstream)| *of != index || *upstream > through);
        }
        log.trim_old(before);
        plain.retain(|(_, upstream)| upstream * 10 >= before);
        for index in 0..4 {
            let (mut after, mut found) = (log.horizon(shard(index)), Vec::new());
            loop {
                let (numbers, is_last) = read(&log, index, after, limit);
                prop_assert!(numbers.len() <= limit);
                after = numbers.last().copied().unwrap_or(after);
                found.extend(numbers);
                if is_last {
                    break;
                }
            }
            let expected: Vec<_> = plain.iter().filter(|(of, _)| *of == index).map(|(_, upstream)| number(*upstream)).collect();
            prop_assert_eq!(found, expected);
        }
        log.trim_old(u64::MAX);
        prop_assert_eq!(log.bytes, 0);
    }
}
