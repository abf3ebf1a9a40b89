//! The check, one property a test.

use super::*;
use crate::caller::{Caller, ScopeKey};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: Uuid = Uuid::from_u128(1);

struct Fixture {
    validity: Validity,
    scope: Scope,
    other: Scope,
}

impl Fixture {
    fn new() -> Self {
        let key = ScopeKey::random();
        let [scope, other] = ["a", "b"].map(|token| Caller::with_token(token, &key).scope());
        Self { validity: Validity::new(), scope, other }
    }

    fn copy(&self, scope: Scope, subject: Subject) -> Guarded<()> {
        Guarded::new((), self.validity.start_read(scope, subject), Freshness::of(MINUTE))
    }

    fn is_served(&self, copy: &Guarded<()>) -> bool {
        self.validity.read(copy, ReadPurpose::Fresh).is_some()
    }

    fn is_storable(&self, copy: &Guarded<()>) -> bool {
        self.validity.is_storable(copy.version())
    }

    fn is_current(&self, copy: &Guarded<()>) -> bool {
        self.validity.is_current(copy.version())
    }

    fn open(&self, id: Option<Uuid>) -> OpenChange {
        self.validity.open_change(self.scope, id, MINUTE)
    }
}

const EACH: [Subject; 2] = [Subject::Appointment(ONE), Subject::List];

#[test]
fn a_copy_is_served_until_it_is_evicted() {
    let fixture = Fixture::new();
    for subject in EACH {
        let copy = fixture.copy(fixture.scope, subject);
        assert!(fixture.is_served(&copy) && fixture.is_storable(&copy));
        copy.evict();
        assert!(!fixture.is_served(&copy));
    }
}

#[test]
fn an_open_change_ends_older_copies_of_every_scope_and_a_refused_one_restores_them() {
    let fixture = Fixture::new();
    for subject in EACH {
        let copies = [fixture.scope, fixture.other].map(|scope| fixture.copy(scope, subject));
        let change = fixture.open(Some(ONE));
        let meanwhile = fixture.copy(fixture.other, subject);
        for copy in &copies {
            assert!(!fixture.is_served(copy) && !fixture.is_storable(copy) && !fixture.is_current(copy));
        }
        assert!(fixture.is_current(&meanwhile), "shared with reads that start meanwhile");
        assert!(!fixture.is_storable(&meanwhile) && !fixture.is_served(&meanwhile));
        change.refused();
        for copy in &copies {
            assert!(fixture.is_served(copy) && fixture.is_storable(copy) && fixture.is_current(copy));
        }
        assert!(!fixture.is_storable(&meanwhile) && !fixture.is_current(&meanwhile));
    }
}

#[test]
fn an_applied_change_ends_older_copies_and_reads_for_good() {
    let fixture = Fixture::new();
    for subject in EACH {
        let before = fixture.copy(fixture.other, subject);
        let change = fixture.open(Some(ONE));
        let meanwhile = fixture.copy(fixture.other, subject);
        assert!(change.applied(Some(ONE)).is_some_and(|version| fixture.validity.is_storable(&version)));
        for copy in [before, meanwhile] {
            assert!(!fixture.is_served(&copy) && !fixture.is_storable(&copy) && !fixture.is_current(&copy));
        }
        assert!(fixture.is_storable(&fixture.copy(fixture.other, subject)));
    }
}

#[test]
fn a_creation_ends_pages_alone() {
    let fixture = Fixture::new();
    let (page, appointment) =
        (fixture.copy(fixture.other, Subject::List), fixture.copy(fixture.other, EACH[0]));
    let change = fixture.open(None);
    assert!(!fixture.is_served(&page) && fixture.is_served(&appointment));
    assert!(change.applied(Some(Uuid::from_u128(2))).is_some());
    assert!(!fixture.is_served(&page) && fixture.is_served(&appointment));
}

#[test]
fn an_unknown_outcome_keeps_reads_from_being_stored_until_it_is_certain() {
    for settle in [OpenChange::unknown as fn(OpenChange), drop] {
        let fixture = Fixture::new();
        for subject in EACH {
            let before = fixture.copy(fixture.other, subject);
            settle(fixture.validity.open_change(fixture.scope, Some(ONE), Duration::from_millis(50)));
            let meanwhile = fixture.copy(fixture.other, subject);
            assert!(!fixture.is_served(&before) && !fixture.is_current(&before));
            assert!(!fixture.is_storable(&meanwhile) && fixture.is_current(&meanwhile));
            std::thread::sleep(Duration::from_millis(60));
            assert!(!fixture.is_served(&before) && !fixture.is_storable(&meanwhile));
            assert!(!fixture.is_current(&meanwhile), "a later read does not share it");
            assert!(fixture.is_storable(&fixture.copy(fixture.other, subject)));
        }
    }
}

#[test]
fn of_two_changes_at_once_neither_answer_is_the_latest_word() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.open(Some(ONE)), fixture.open(Some(ONE)));
    assert!(first.applied(Some(ONE)).is_none());
    assert!(second.applied(Some(ONE)).is_none());
    assert!(fixture.open(Some(ONE)).applied(Some(ONE)).is_some());
}

#[test]
fn a_revocation_ends_the_copies_of_its_scope_alone() {
    let fixture = Fixture::new();
    for subject in EACH {
        let [own, others] = [fixture.scope, fixture.other].map(|scope| fixture.copy(scope, subject));
        fixture.validity.revoke_everything(fixture.scope);
        assert!(!fixture.is_served(&own) && !fixture.is_storable(&own) && !fixture.is_current(&own));
        assert!(fixture.is_served(&others) && fixture.is_storable(&others));
    }
    let [one, two] = [1, 2].map(|n| fixture.copy(fixture.scope, Subject::Appointment(Uuid::from_u128(n))));
    let page = fixture.copy(fixture.scope, Subject::List);
    fixture.validity.revoke(fixture.scope, ONE);
    assert!(!fixture.is_current(&one) && !fixture.is_storable(&one));
    assert!(fixture.is_current(&two) && fixture.is_storable(&two));
    assert!(!fixture.is_storable(&page), "it may show the appointment");
    let page = fixture.copy(fixture.scope, Subject::List);
    fixture.validity.revoke_list(fixture.scope);
    assert!(!fixture.is_served(&page) && fixture.is_served(&two));
}

#[test]
fn an_absence_is_not_revoked_by_itself() {
    let fixture = Fixture::new();
    let read = fixture.validity.start_read(fixture.scope, EACH[0]);
    let absent = fixture.validity.found_absent(&read, ONE);
    assert!(fixture.validity.is_storable(&absent) && !fixture.validity.is_storable(&read));
    fixture.validity.revoke_everything(fixture.scope);
    assert!(!fixture.validity.is_storable(&absent));
    let read = fixture.validity.start_read(fixture.scope, EACH[0]);
    fixture.validity.revoke_everything(fixture.scope);
    assert!(!fixture.validity.is_storable(&fixture.validity.found_absent(&read, ONE)));
}

#[test]
fn an_awaited_result_is_served_once_even_if_it_is_not_storable() {
    let fixture = Fixture::new();
    let since = Instant::now();
    let change = fixture.open(Some(ONE));
    let copy = fixture.copy(fixture.scope, EACH[0]);
    let later = Instant::now() + Duration::from_millis(1);
    assert!(fixture.validity.read_awaited(&copy, since).is_some());
    assert!(fixture.validity.read_awaited(&copy, later).is_none(), "it was there before");
    assert!(change.applied(Some(ONE)).is_some());
    assert!(fixture.validity.read_awaited(&copy, since).is_none(), "it is outdated");
}

#[test]
fn nothing_is_shared_for_a_scope_with_an_unpublished_revocation() {
    let fixture = Fixture::new();
    let read = |scope| fixture.validity.start_read(scope, Subject::Appointment(ONE));
    let (version, other) = (read(fixture.scope), read(fixture.other));
    assert!(fixture.validity.is_shareable(&version, 0));
    let unpublished = [(); 2].map(|()| fixture.validity.unpublished_revocation(fixture.scope));
    let [first, second] = unpublished;
    drop(first);
    assert!(
        !fixture.validity.is_shareable(&version, 0)
            && !fixture.validity.is_shareable(&read(fixture.scope), 9)
    );
    assert!(fixture.validity.is_shareable(&other, 0));
    drop(second);
    assert!(fixture.validity.is_shareable(&version, 0));
}

#[test]
fn a_copy_of_another_replica_ages_from_its_read() {
    let fixture = Fixture::new();
    let copy = || fixture.copy(fixture.scope, Subject::List);
    assert!(fixture.is_served(&copy().of_age(MINUTE / 2)));
    assert!(!fixture.is_served(&copy().of_age(MINUTE)));
    // Older than this machine has been running.
    assert!(!fixture.is_served(&copy().of_age(Duration::from_secs(u64::from(u32::MAX)))));
    let served = copy().of_age(MINUTE / 2);
    let left = served.fresh_for(Instant::now()).unwrap();
    assert!(left <= MINUTE / 2 && left > MINUTE / 3);
}
