//! What a stream answers, without anything around it.

use std::time::Duration;

use super::super::request;
use super::*;

const NOW: Given = Given { epoch: 1, at_millis: 0 };
const ARN: &str = "arn:aws:dynamodb:local:0:table/events/stream/1";

fn stream(shards: u32) -> VirtualStream {
    let key = |name: &str, role: &str| json!({ "AttributeName": name, "KeyType": role });
    let name = StreamName {
        arn: ARN.into(),
        label: "1".into(),
        table: "events".into(),
        view_type: "NEW_IMAGE".into(),
        created: json!(1_700_000_000),
        // The order of the schema does not matter.
        key_schema: json!([key("sk", "RANGE"), key("pk", "HASH")]),
    };
    VirtualStream::new(name, Layout::new(shards, 1000), Log::new(1 << 20), false)
}

fn change(root: u64, sequence: u64, upstream: u64) -> Value {
    json!({
        "eventID": "x",
        "dynamodb": {
            "Keys": { "sk": { "N": sequence.to_string() }, "pk": { "S": format!("orders##{root}") } },
            "SequenceNumber": upstream.to_string(),
            "SizeBytes": 100,
            "ApproximateCreationDateTime": 1.5,
        }
    })
}

fn describe(stream: &VirtualStream, request: &Value) -> Value {
    describe_bent(stream, request, None)
}

fn describe_bent(stream: &VirtualStream, request: &Value, mischief: Option<Mischief>) -> Value {
    let mut request = request.clone();
    request["StreamArn"] = ARN.into();
    stream.describe(&request::read(request.to_string().as_bytes()).unwrap(), mischief).unwrap()["StreamDescription"]
        .take()
}

fn cursor(shard: ShardName, after: Number) -> Cursor {
    Cursor { stream: ARN.into(), shard, after, given: NOW }
}

/// The sequences read behind a place, and whether the shard goes on.
fn read(stream: &VirtualStream, shard: ShardName, after: Number) -> Result<(Vec<u64>, bool), Fault> {
    let (sequences, next) = parsed(&stream.read(&cursor(shard, after), 1000, NOW)?);
    assert!(next.as_ref().is_none_or(|next| next.shard == shard));
    Ok((sequences, next.is_some()))
}

/// The sequences on a page, and where it goes on.
fn parsed(body: &str) -> (Vec<u64>, Option<Cursor>) {
    let body: Value = serde_json::from_str(body).unwrap();
    let sequence = |record: &Value| record["dynamodb"]["Keys"]["sk"]["N"].as_str().unwrap().parse().unwrap();
    let next = body.get("NextShardIterator").map(|next| Cursor::decode(next.as_str().unwrap()).unwrap());
    assert!(next.as_ref().is_none_or(|next| !next.given.has_expired(NOW, Duration::from_secs(1))));
    (body["Records"].as_array().unwrap().iter().map(sequence).collect(), next)
}

#[test]
fn shards_are_listed_in_pages_and_each_once() {
    let stream = stream(250);
    for limit in [json!(null), json!(7), json!(1000)] {
        let (mut seen, mut after) = (Vec::new(), Value::Null);
        loop {
            let page = describe(&stream, &json!({ "Limit": limit, "ExclusiveStartShardId": after }));
            let shards = page["Shards"].as_array().unwrap();
            assert!(shards.len() <= limit.as_u64().map_or(100, |limit| usize::try_from(limit).unwrap().min(100)));
            seen.extend(shards.iter().map(|shard| shard["ShardId"].as_str().unwrap().to_owned()));
            after = page["LastEvaluatedShardId"].clone();
            if after.is_null() {
                break;
            }
        }
        assert!(seen.len() == 250 && seen.is_sorted_by(|one, two| one < two));
    }
}

#[test]
fn a_closed_shard_has_an_end_and_its_child_is_found_by_its_parent() {
    let mut stream = stream(1);
    let first = stream.layout.open().next().unwrap();
    let open = describe(&stream, &json!({}));
    assert!(open["Shards"][0]["SequenceNumberRange"].get("EndingSequenceNumber").is_none());
    let child = stream.layout.roll(first, false, 2000).unwrap();
    let closed = describe(&stream, &json!({}));
    assert_eq!(closed["Shards"].as_array().unwrap().len(), 1, "the child is not listed yet");
    assert!(closed["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    let filter = json!({ "ShardFilter": { "Type": "CHILD_SHARDS", "ShardId": first.to_string() } });
    assert_eq!(describe(&stream, &filter)["Shards"], json!([]));
    assert!(matches!(stream.open(child, Place::Horizon), Err(Fault::NotFound(_))));
    stream.layout.list(child).unwrap();
    let children = describe(&stream, &filter);
    assert_eq!(children["Shards"][0]["ShardId"], child.to_string());
    assert_eq!(children["Shards"][0]["ParentShardId"], first.to_string());
    assert_eq!(describe(&stream, &json!({}))["Shards"].as_array().unwrap().len(), 2);
}

#[test]
fn records_before_a_roll_are_in_the_parent_and_those_behind_it_in_the_child() {
    let mut stream = stream(1);
    let parent = stream.layout.open().next().unwrap();
    (0..3).for_each(|sequence| stream.take(&mut change(1, sequence, sequence + 5)).unwrap());
    let child = stream.layout.roll(parent, true, 2000).unwrap();
    (3..5).for_each(|sequence| stream.take(&mut change(1, sequence, sequence + 5)).unwrap());
    assert_eq!(read(&stream, parent, Number::ZERO), Ok((vec![0, 1, 2], false)));
    assert_eq!(read(&stream, child, stream.open(child, Place::Horizon).unwrap()), Ok((vec![3, 4], true)));
    let last = Number::of_upstream("9").unwrap();
    assert_eq!(read(&stream, child, last), Ok((vec![], true)), "an open shard goes on");
    stream.end(3000);
    assert_eq!(read(&stream, child, last), Ok((vec![], false)));
    assert_eq!(describe(&stream, &json!({}))["StreamStatus"], "DISABLED");
}

#[test]
fn an_iterator_begins_where_it_is_told_to() {
    let mut stream = stream(1);
    let shard = stream.layout.open().next().unwrap();
    (0..4).for_each(|sequence| stream.take(&mut change(1, sequence, sequence + 5)).unwrap());
    let second = Number::of_upstream("6").unwrap();
    let from = |place| read(&stream, shard, stream.open(shard, place).unwrap()).unwrap().0;
    assert_eq!(from(Place::Horizon), [0, 1, 2, 3]);
    assert_eq!(from(Place::At(second)), [1, 2, 3]);
    assert_eq!(from(Place::After(second)), [2, 3]);
    assert_eq!(from(Place::Latest), Vec::<u64>::new());
    let unknown = stream.open(ShardName::new(7, 7), Place::Horizon);
    assert!(matches!(unknown, Err(Fault::NotFound(_))));
    let child = stream.layout.roll(shard, true, 2000).unwrap();
    assert!(matches!(stream.open(child, Place::After(second)), Err(Fault::Invalid(_))), "a number of its parent's");
    assert!(matches!(stream.open(shard, Place::After(Number::MAX)), Err(Fault::Invalid(_))));
}

#[test]
fn what_was_trimmed_is_told_to_whoever_had_not_read_it() {
    let mut stream = stream(1);
    let shard = stream.layout.open().next().unwrap();
    (0..4).for_each(|sequence| stream.take(&mut change(1, sequence, sequence + 5)).unwrap());
    let number = |upstream: u64| Number::of_upstream(&upstream.to_string()).unwrap();
    stream.trim(shard, number(6)).unwrap();
    assert_eq!(stream.open(shard, Place::After(number(5))), Err(Fault::Trimmed));
    assert_eq!(stream.open(shard, Place::At(number(6))), Err(Fault::Trimmed));
    assert_eq!(read(&stream, shard, number(5)), Err(Fault::Trimmed));
    assert_eq!(read(&stream, shard, stream.open(shard, Place::Horizon).unwrap()), Ok((vec![2, 3], true)));
    assert_eq!(read(&stream, shard, stream.open(shard, Place::After(number(6))).unwrap()), Ok((vec![2, 3], true)));
    // What is to come cannot be trimmed.
    stream.trim(shard, Number::MAX).unwrap();
    stream.take(&mut change(1, 4, 9)).unwrap();
    assert_eq!(read(&stream, shard, stream.open(shard, Place::Horizon).unwrap()), Ok((vec![4], true)));
    let child = stream.layout.roll(shard, true, 2000).unwrap();
    assert_eq!(stream.log.count(shard), 1);
    stream.remove(shard).unwrap();
    assert_eq!(stream.log.count(shard), 0, "its records go with it");
    assert_eq!(read(&stream, shard, number(9)), Err(Fault::Trimmed));
    assert!(matches!(stream.open(shard, Place::Horizon), Err(Fault::NotFound(_))));
    assert_eq!(describe(&stream, &json!({}))["Shards"][0]["ParentShardId"], shard.to_string());
    assert!(read(&stream, child, Number::MAX).is_ok());
}

#[test]
fn old_records_and_old_closed_shards_go() {
    let mut stream = stream(1);
    let first = stream.layout.open().next().unwrap();
    stream.take(&mut change(1, 0, 5)).unwrap();
    let second = stream.layout.roll(first, true, 2000).unwrap();
    let third = stream.layout.roll(second, true, 9000).unwrap();
    stream.trim_old(5000);
    let left: Vec<_> = stream.layout.behind(None).map(|(name, _)| name).collect();
    assert_eq!(left, [second, third]);
    assert_eq!(stream.log.count(first), 0);
}

#[test]
fn a_restored_stream_says_that_what_came_before_its_first_record_is_not_there() {
    let layout = Layout::new(1, 1000);
    let shard = layout.open().next().unwrap();
    let mut stream = VirtualStream { restored: true, ..stream(1) };
    stream.layout = layout;
    stream.take(&mut change(1, 7, 50)).unwrap();
    stream.take(&mut change(1, 8, 51)).unwrap();
    let number = |upstream: u64| Number::of_upstream(&upstream.to_string()).unwrap();
    assert_eq!(stream.open(shard, Place::After(number(40))), Err(Fault::Trimmed));
    assert_eq!(read(&stream, shard, stream.open(shard, Place::After(number(50))).unwrap()), Ok((vec![8], true)));
    assert_eq!(read(&stream, shard, stream.open(shard, Place::Horizon).unwrap()), Ok((vec![7, 8], true)));
}

#[test]
fn an_upstream_that_counts_from_the_beginning_again_goes_on_behind() {
    let mut stream = stream(1);
    let shard = stream.layout.open().next().unwrap();
    for (sequence, upstream) in (0..).zip([5, 6, 1, 2]) {
        stream.take(&mut change(1, sequence, upstream)).unwrap();
    }
    assert_eq!(read(&stream, shard, Number::ZERO), Ok((vec![0, 1, 2, 3], true)));
    let second = Number::of_upstream("6").unwrap();
    assert_eq!(read(&stream, shard, second), Ok((vec![2, 3], true)));
}

#[test]
fn what_is_no_record_is_told() {
    let mut stream = stream(1);
    let good = change(1, 0, 5);
    for (pointer, missing) in [
        ("/dynamodb", "body"),
        ("/dynamodb/Keys", "keys"),
        ("/dynamodb/Keys/pk", "partition key"),
        ("/dynamodb/SequenceNumber", "sequence number"),
    ] {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut bad = good.clone();
        let parent = if parent.is_empty() { &mut bad } else { bad.pointer_mut(parent).unwrap() };
        parent.as_object_mut().unwrap().remove(name);
        assert_eq!(stream.take(&mut bad), Err(missing));
    }
    assert_eq!(stream.layout.last(), Number::ZERO);
}

#[test]
fn a_bent_list_lacks_the_newest_shards_or_shows_their_parents_open() {
    let mut stream = stream(2);
    let shards: Vec<_> = stream.layout.open().collect();
    let shown = |stream: &VirtualStream, mischief| {
        let list = describe_bent(stream, &json!({}), mischief)["Shards"].take();
        let open = |shard: &Value| shard["SequenceNumberRange"].get("EndingSequenceNumber").is_none();
        let shown =
            list.as_array().unwrap().iter().map(|shard| (shard["ShardId"].as_str().unwrap().to_owned(), open(shard)));
        shown.collect::<Vec<_>>()
    };
    let kinds = [Mischief::Outdated, Mischief::OpenParents, Mischief::UnlistedChildren].map(Some);
    assert!(kinds.iter().all(|kind| shown(&stream, *kind) == shown(&stream, None)), "nothing has changed yet");
    let old = stream.layout.roll(shards[0], true, 2000).unwrap();
    let [low, high] = stream.layout.split(old, 3000).unwrap();
    let expected = |of: &[(ShardName, bool)]| {
        let mut of: Vec<_> = of.iter().map(|(name, open)| (name.to_string(), *open)).collect();
        of.sort();
        of
    };
    let (first, second) = (shards[0], shards[1]);
    let whole = [(first, false), (second, true), (old, false), (low, true), (high, true)];
    assert_eq!(shown(&stream, None), expected(&whole));
    let outdated = [(first, false), (second, true), (old, true)];
    assert_eq!(shown(&stream, kinds[0]), expected(&outdated), "as before the last change");
    let open = whole.map(|(name, _)| (name, true));
    assert_eq!(shown(&stream, kinds[1]), expected(&open));
    let childless = [(first, false), (second, true), (old, false)];
    assert_eq!(shown(&stream, kinds[2]), expected(&childless));
    let filter = json!({ "ShardFilter": { "Type": "CHILD_SHARDS", "ShardId": old.to_string() } });
    assert_eq!(describe_bent(&stream, &filter, kinds[2])["Shards"], json!([]));
}

#[test]
fn a_bent_page_repeats_is_empty_or_trimmed_and_goes_on_where_it_should() {
    let mut stream = stream(1);
    let shard = stream.layout.open().next().unwrap();
    (0..4).for_each(|sequence| stream.take(&mut change(1, sequence, sequence + 5)).unwrap());
    let at = |upstream: u64| cursor(shard, Number::of_upstream(&upstream.to_string()).unwrap());
    let begin = cursor(shard, Number::ZERO);
    let again = parsed(&stream.read_again(&at(6), 1000, NOW).unwrap());
    assert_eq!(again, (vec![0, 1], Some(at(6))));
    assert_eq!(parsed(&stream.read_again(&at(7), 2, NOW).unwrap()).0, [1, 2]);
    assert_eq!(stream.read_again(&begin, 1000, NOW), None, "nothing was read yet");
    assert_eq!(parsed(&stream.read_nothing(&at(6), NOW).unwrap()), (vec![], Some(at(6))));
    assert_eq!(stream.read_nothing(&at(8), NOW), None, "there is nothing anyway");
    assert!(!stream.trim_page(&at(8), 1000));
    assert!(stream.trim_page(&at(5), 2));
    assert_eq!(stream.read(&at(5), 1000, NOW), Err(Fault::Trimmed));
    assert_eq!((stream.read_again(&at(5), 1000, NOW), stream.read_nothing(&at(5), NOW)), (None, None));
    assert_eq!(read(&stream, shard, stream.open(shard, Place::Horizon).unwrap()), Ok((vec![3], true)));
}
