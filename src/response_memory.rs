//! A bound on the bytes of all answers in memory (`http.max_response_memory`).
//!
//! A [`Reservation`] grows while an answer is written and is released with the last copy of its bytes. An answer counts
//! for as long as it lives, in the answer cache or in a connection whose client reads slowly, and clones of its
//! [`Bytes`] cost nothing more.
//!
//! The bytes of a reservation beyond its first step count for the caller that it belongs to: a caller may have a share of
//! the memory that others leave (`limits.caller_share`), and one answer in any case. Cached copies belong to nobody.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use bytesize::ByteSize;

use crate::{caller::Scope, metrics::metrics};

/// Reservations grow in steps of this many bytes, so that a small answer costs one atomic operation.
const STEP: usize = 16 * 1024;

/// The memory that answers may take together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponseMemory(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    maximum: usize,
    reserved: AtomicUsize,
    /// The share of one caller, in percent of what others leave.
    percent: usize,
    by_owner: Mutex<HashMap<Owner, usize>>,
}

/// The caller whose answer takes memory; none of those without a valid credential, who count as one.
pub type Owner = Option<Scope>;

/// The memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// Memory set aside for one answer, released on drop.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    bytes: usize,
    /// Whose it is; none of a cached copy.
    owner: Option<Owner>,
    /// The bytes that count for the owner.
    owned: usize,
}

/// The owner of the bytes of an answer.
struct Reserved {
    buffer: Vec<u8>,
    _reservation: Reservation,
}

impl ResponseMemory {
    /// A pool of `maximum` bytes, of which a caller may have so many `percent` of those that others leave.
    pub fn new(maximum: ByteSize, percent: usize) -> Self {
        let maximum = usize::try_from(maximum.as_u64()).unwrap_or(usize::MAX);
        let (reserved, by_owner) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Pool { maximum, reserved, percent, by_owner }))
    }

    /// The size of the pool.
    pub fn maximum(&self) -> usize {
        self.0.maximum
    }

    /// Returns an empty reservation, to be grown.
    pub fn reservation(&self) -> Reservation {
        Reservation { pool: self.0.clone(), bytes: 0, owner: None, owned: 0 }
    }

    /// Returns an empty reservation of `owner`, to be grown.
    pub fn reservation_of(&self, owner: Owner) -> Reservation {
        Reservation { pool: self.0.clone(), bytes: 0, owner: Some(owner), owned: 0 }
    }

    /// Reserves exactly `bytes`.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        let mut reservation = self.reservation();
        reservation.add(bytes)?;
        Ok(reservation)
    }

    /// Copies an answer into memory of its own, without the unused capacity of the original.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn copy(&self, answer: &[u8]) -> Result<Bytes, Exhausted> {
        Ok(self.reserve(answer.len())?.hold(answer.to_vec()))
    }

    /// Publishes the reserved bytes in the [metrics].
    pub fn observe(&self) {
        metrics().response_memory.set(self.0.reserved.load(Ordering::Relaxed) as i64);
    }
}

impl Reservation {
    /// The bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to at least `bytes`, by whole steps.
    ///
    /// # Errors
    /// [`Exhausted`]; the reservation keeps its size.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let target = bytes.next_multiple_of(STEP).min(self.pool.maximum).max(bytes);
        self.add(target.saturating_sub(self.bytes))
    }

    /// Grows to at least `bytes`, beyond the size of the pool if need be.
    pub fn overdraw_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.pool.reserved.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        self.own(self.owner_bytes());
    }

    /// Binds the reservation to `buffer`, until the last clone of the bytes is dropped. A buffer much smaller than its
    /// reservation releases the difference.
    pub fn hold(mut self, buffer: Vec<u8>) -> Bytes {
        self.overdraw_to(buffer.len());
        self.shrink_to(buffer.len().next_multiple_of(STEP));
        Bytes::from_owner(Reserved { buffer, _reservation: self })
    }

    fn add(&mut self, more: usize) -> Result<(), Exhausted> {
        let Pool { maximum, reserved, .. } = &*self.pool;
        let grown = |reserved: usize| reserved.checked_add(more).filter(|sum| sum <= maximum);
        reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| Exhausted)?;
        self.bytes += more;
        let owned = self.owner_bytes();
        if self.is_over_share(owned) {
            self.shrink_to(self.bytes - more);
            return Err(Exhausted);
        }
        self.own(owned);
        Ok(())
    }

    /// The bytes that are to count for the owner.
    fn owner_bytes(&self) -> usize {
        self.owner.map_or(0, |_| self.bytes.saturating_sub(STEP))
    }

    /// Whether so many bytes would be more than the owner's share, beside its other answers.
    fn is_over_share(&self, owned: usize) -> bool {
        let Some(owner) = self.owner.filter(|_| owned > self.owned) else { return false };
        let Pool { maximum, reserved, percent, .. } = &*self.pool;
        let all = self.pool.lock().get(&owner).copied().unwrap_or(0);
        let beside = all - self.owned;
        let others = reserved.load(Ordering::Relaxed).saturating_sub(beside + self.bytes);
        beside > 0 && beside + owned > maximum.saturating_sub(others) / 100 * percent
    }

    /// Counts so many bytes for the owner.
    fn own(&mut self, owned: usize) {
        if let Some(owner) = self.owner.filter(|_| owned != self.owned) {
            let mut by_owner = self.pool.lock();
            let all = by_owner.entry(owner).or_default();
            *all = *all - self.owned + owned;
            if *all == 0 {
                by_owner.remove(&owner);
            }
            drop(by_owner);
            self.owned = owned;
        }
    }

    /// Releases what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.pool.reserved.fetch_sub(less, Ordering::Relaxed);
            self.bytes -= less;
            self.own(self.owner_bytes());
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(memory: &ResponseMemory) -> usize {
        memory.0.reserved.load(Ordering::Relaxed)
    }

    #[test]
    fn bytes_are_reserved_until_their_last_clone_is_dropped() {
        let memory = ResponseMemory::new(ByteSize::kib(64), 100);
        let mut reservation = memory.reservation();
        reservation.grow_to(1).unwrap();
        assert_eq!(reserved(&memory), STEP);
        reservation.grow_to(STEP).unwrap();
        assert_eq!(reserved(&memory), STEP, "within the step");
        let bytes = reservation.hold(vec![0; 100]);
        let copy = memory.copy(&bytes).unwrap();
        assert_eq!(reserved(&memory), STEP + 100);
        let slice = bytes.slice(..10);
        drop((bytes, copy));
        assert_eq!(reserved(&memory), STEP);
        drop(slice);
        assert_eq!(reserved(&memory), 0);
    }

    #[test]
    fn growth_stops_at_the_maximum() {
        let memory = ResponseMemory::new(ByteSize(3 * STEP as u64 - 1), 100);
        let mut first = memory.reservation();
        first.grow_to(STEP + 1).unwrap();
        let mut second = memory.reservation();
        assert_eq!(second.grow_to(1), Err(Exhausted));
        assert_eq!((second.bytes(), reserved(&memory)), (0, 2 * STEP));
        second.overdraw_to(STEP);
        assert_eq!(reserved(&memory), 3 * STEP);
        drop(first);
        assert_eq!(second.grow_to(3 * STEP), Err(Exhausted));
        second.grow_to(3 * STEP - 1).unwrap();
        drop(second);
        assert_eq!(reserved(&memory), 0);
    }

    #[test]
    fn a_buffer_releases_the_steps_that_it_does_not_use() {
        let memory = ResponseMemory::new(ByteSize::mib(1), 100);
        let reservation = memory.reserve(10 * STEP).unwrap();
        let bytes = reservation.hold(vec![0; STEP + 1]);
        assert_eq!(reserved(&memory), 2 * STEP);
        drop(bytes);
        assert_eq!(reserved(&memory), 0);
    }

    #[test]
    fn a_caller_has_a_share_of_what_others_leave_and_one_answer_in_any_case() {
        let memory = ResponseMemory::new(ByteSize(20 * STEP as u64), 50);
        let (caller, nobody) = (Some(scope("a")), None);
        let mut first = memory.reservation_of(caller);
        first.grow_to(15 * STEP).unwrap();
        let mut second = memory.reservation_of(caller);
        second.grow_to(STEP).unwrap();
        assert_eq!(second.grow_to(2 * STEP), Err(Exhausted), "more than a half");
        assert_eq!((second.bytes(), reserved(&memory)), (STEP, 16 * STEP));
        let mut other = memory.reservation_of(nobody);
        other.grow_to(3 * STEP).unwrap();
        drop(first);
        second.grow_to(8 * STEP).unwrap();
        let bytes = second.hold(vec![0; 8 * STEP]);
        assert_eq!(memory.0.lock()[&caller], 7 * STEP);
        drop((bytes, other));
        assert!(memory.0.lock().is_empty() && reserved(&memory) == 0);
    }

    fn scope(token: &str) -> Scope {
        crate::caller::Caller::with_token(token, &crate::caller::ScopeKey::random()).who()
    }
}
