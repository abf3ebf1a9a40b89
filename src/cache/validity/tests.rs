//! The check, one property a test.

use super::*;
use crate::caller::{Caller, ScopeKey};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: Uuid = Uuid::from_u128(1);

struct Subject {
    validity: Validity,
    scope: Scope,
    other: Scope,
}

impl Subject {
    fn new() -> Self {
        let key = ScopeKey::random();
        let [scope, other] = ["a", "b"].map(|token| Caller::with_token(token, &key).scope());
        Self { validity: Validity::new(), scope, other }
    }

    fn copy(&self, scope: Scope, resource: Resource) -> Guarded<()> {
        Guarded::new((), self.validity.start_read(scope, resource), Freshness::of(MINUTE))
    }

    fn is_served(&self, copy: &Guarded<()>) -> bool {
        self.validity.read(copy, Use::Fresh).is_some()
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

const EACH: [Resource; 2] = [Resource::Appointment(ONE), Resource::List];

#[test]
fn a_copy_is_served_until_it_is_evicted() {
    let subject = Subject::new();
    for resource in EACH {
        let copy = subject.copy(subject.scope, resource);
        assert!(subject.is_served(&copy) && subject.is_storable(&copy));
        copy.evict();
        assert!(!subject.is_served(&copy));
    }
}

#[test]
fn an_open_change_ends_older_copies_of_every_scope_and_a_refused_one_restores_them() {
    let subject = Subject::new();
    for resource in EACH {
        let copies = [subject.scope, subject.other].map(|scope| subject.copy(scope, resource));
        let change = subject.open(Some(ONE));
        let meanwhile = subject.copy(subject.other, resource);
        for copy in &copies {
            assert!(!subject.is_served(copy) && !subject.is_storable(copy) && !subject.is_current(copy));
        }
        assert!(subject.is_current(&meanwhile), "shared with reads that start meanwhile");
        assert!(!subject.is_storable(&meanwhile) && !subject.is_served(&meanwhile));
        change.refused();
        for copy in &copies {
            assert!(subject.is_served(copy) && subject.is_storable(copy) && subject.is_current(copy));
        }
        assert!(!subject.is_storable(&meanwhile) && !subject.is_current(&meanwhile));
    }
}

#[test]
fn an_applied_change_ends_older_copies_and_reads_for_good() {
    let subject = Subject::new();
    for resource in EACH {
        let before = subject.copy(subject.other, resource);
        let change = subject.open(Some(ONE));
        let meanwhile = subject.copy(subject.other, resource);
        assert!(change.applied(Some(ONE)).is_some_and(|version| subject.validity.is_storable(&version)));
        for copy in [before, meanwhile] {
            assert!(!subject.is_served(&copy) && !subject.is_storable(&copy) && !subject.is_current(&copy));
        }
        assert!(subject.is_storable(&subject.copy(subject.other, resource)));
    }
}

#[test]
fn a_creation_ends_pages_alone() {
    let subject = Subject::new();
    let (page, appointment) =
        (subject.copy(subject.other, Resource::List), subject.copy(subject.other, EACH[0]));
    let change = subject.open(None);
    assert!(!subject.is_served(&page) && subject.is_served(&appointment));
    assert!(change.applied(Some(Uuid::from_u128(2))).is_some());
    assert!(!subject.is_served(&page) && subject.is_served(&appointment));
}

#[test]
fn an_unknown_outcome_keeps_reads_from_being_stored_until_it_is_certain() {
    for settle in [OpenChange::unknown as fn(OpenChange), drop] {
        let subject = Subject::new();
        for resource in EACH {
            let before = subject.copy(subject.other, resource);
            settle(subject.validity.open_change(subject.scope, Some(ONE), Duration::from_millis(50)));
            let meanwhile = subject.copy(subject.other, resource);
            assert!(!subject.is_served(&before) && !subject.is_current(&before));
            assert!(!subject.is_storable(&meanwhile) && subject.is_current(&meanwhile));
            std::thread::sleep(Duration::from_millis(60));
            assert!(!subject.is_served(&before) && !subject.is_storable(&meanwhile));
            assert!(!subject.is_current(&meanwhile), "a later read does not share it");
            assert!(subject.is_storable(&subject.copy(subject.other, resource)));
        }
    }
}

#[test]
fn of_two_changes_at_once_neither_answer_is_the_latest_word() {
    let subject = Subject::new();
    let (first, second) = (subject.open(Some(ONE)), subject.open(Some(ONE)));
    assert!(first.applied(Some(ONE)).is_none());
    assert!(second.applied(Some(ONE)).is_none());
    assert!(subject.open(Some(ONE)).applied(Some(ONE)).is_some());
}

#[test]
fn a_revocation_ends_the_copies_of_its_scope_alone() {
    let subject = Subject::new();
    for resource in EACH {
        let [own, others] = [subject.scope, subject.other].map(|scope| subject.copy(scope, resource));
        subject.validity.revoke_everything(subject.scope);
        assert!(!subject.is_served(&own) && !subject.is_storable(&own) && !subject.is_current(&own));
        assert!(subject.is_served(&others) && subject.is_storable(&others));
    }
    let [one, two] = [1, 2].map(|n| subject.copy(subject.scope, Resource::Appointment(Uuid::from_u128(n))));
    let page = subject.copy(subject.scope, Resource::List);
    subject.validity.revoke(subject.scope, ONE);
    assert!(!subject.is_current(&one) && !subject.is_storable(&one));
    assert!(subject.is_current(&two) && subject.is_storable(&two));
    assert!(!subject.is_storable(&page), "it may show the appointment");
    let page = subject.copy(subject.scope, Resource::List);
    subject.validity.revoke_list(subject.scope);
    assert!(!subject.is_served(&page) && subject.is_served(&two));
}

#[test]
fn an_absence_is_not_revoked_by_itself() {
    let subject = Subject::new();
    let read = subject.validity.start_read(subject.scope, EACH[0]);
    let absent = subject.validity.found_absent(&read, ONE);
    assert!(subject.validity.is_storable(&absent) && !subject.validity.is_storable(&read));
    subject.validity.revoke_everything(subject.scope);
    assert!(!subject.validity.is_storable(&absent));
    let read = subject.validity.start_read(subject.scope, EACH[0]);
    subject.validity.revoke_everything(subject.scope);
    assert!(!subject.validity.is_storable(&subject.validity.found_absent(&read, ONE)));
}

#[test]
fn an_awaited_result_is_served_once_even_if_it_is_not_storable() {
    let subject = Subject::new();
    let since = Instant::now();
    let change = subject.open(Some(ONE));
    let copy = subject.copy(subject.scope, EACH[0]);
    let later = Instant::now() + Duration::from_millis(1);
    assert!(subject.validity.read_awaited(&copy, since).is_some());
    assert!(subject.validity.read_awaited(&copy, later).is_none(), "it was there before");
    assert!(change.applied(Some(ONE)).is_some());
    assert!(subject.validity.read_awaited(&copy, since).is_none(), "it is outdated");
}
