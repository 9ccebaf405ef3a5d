//! How many tests may use emulators at once.
//!
//! A slot belongs to a test, not to an emulator: two tests that each held one emulator and waited for a second would
//! wait for ever. A test is known by its thread, so emulators are started from the test itself, never from a task it
//! spawned.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Tests that use emulators at once; each emulator takes a core while it works and 200 MB.
const SLOTS: u32 = 2;
static FREE: Semaphore = Semaphore::const_new(SLOTS as usize);

/// The right to run emulators; shared by all emulators of one test.
pub(crate) type Slot = Arc<SemaphorePermit<'static>>;

thread_local! {
    static OF_THIS_TEST: RefCell<Weak<SemaphorePermit<'static>>> = const { RefCell::new(Weak::new()) };
}

/// The test's slot; waits for one when this is the test's first emulator.
pub(crate) async fn slot() -> Slot {
    if let Some(slot) = OF_THIS_TEST.with_borrow(Weak::upgrade) {
        return slot;
    }
    let slot = Arc::new(FREE.acquire().await.expect("the slots are never closed"));
    OF_THIS_TEST.set(Arc::downgrade(&slot));
    slot
}

/// All slots at once, before the test's first emulator: for one that moves so much that another's pace would be its own.
pub(crate) async fn all_slots() -> Slot {
    let all = Arc::new(FREE.acquire_many(SLOTS).await.expect("the slots are never closed"));
    OF_THIS_TEST.set(Arc::downgrade(&all));
    all
}

#[tokio::test]
async fn a_test_has_one_slot_however_many_emulators_it_runs() {
    let first = slot().await;
    let second = slot().await;
    assert!(Arc::ptr_eq(&first, &second));
}
