//! A bound on the memory of all responses (`http.max_response_memory`).
//!
//! A [`Reservation`] grows while a response is written, and is released with the last clone of its [`Bytes`]. A
//! response thus counts as long as it exists, in the response cache or in the write buffer of a slow client. Clones are
//! free.
//!
//! The bytes beyond the first step of a reservation count towards its caller. A caller may use a share of the memory
//! that other callers leave (`limits.caller_share`), and one response in any case. Cached copies have no owner.

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

/// The unit of growth of a reservation, in bytes. A small response thus costs one atomic operation.
const STEP: usize = 16 * 1024;

/// The memory pool of all responses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponseMemory(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    maximum: usize,
    reserved: AtomicUsize,
    /// The share of one caller, in percent of the memory that other callers leave.
    percent: usize,
    by_owner: Mutex<HashMap<Owner, usize>>,
}

/// The caller of a response; `None` for all unauthenticated callers together.
pub type Owner = Option<Scope>;

/// The error of a failed reservation: the pool or the caller's share of it is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryExhausted;

/// Memory reserved for one response. Released on drop.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    bytes: usize,
    /// `None` for a cached copy.
    owner: Option<Owner>,
    /// The bytes that count towards the owner.
    charged: usize,
}

/// The backing of a response's [`Bytes`].
struct ReservedBuffer {
    buffer: Vec<u8>,
    _reservation: Reservation,
}

impl ResponseMemory {
    /// Creates a pool of `maximum` bytes. One caller may use `percent` of the bytes that other callers leave.
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
        Reservation { pool: self.0.clone(), bytes: 0, owner: None, charged: 0 }
    }

    /// Returns an empty reservation of `owner`, to be grown.
    pub fn reservation_of(&self, owner: Owner) -> Reservation {
        Reservation { pool: self.0.clone(), bytes: 0, owner: Some(owner), charged: 0 }
    }

    /// Reserves exactly `bytes`.
    ///
    /// # Errors
    /// [`MemoryExhausted`]
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, MemoryExhausted> {
        let mut reservation = self.reservation();
        reservation.add(bytes)?;
        Ok(reservation)
    }

    /// Copies a response into a reservation of its exact size.
    ///
    /// # Errors
    /// [`MemoryExhausted`]
    pub fn copy(&self, response: &[u8]) -> Result<Bytes, MemoryExhausted> {
        Ok(self.reserve(response.len())?.into_bytes(response.to_vec()))
    }

    /// Publishes the reserved bytes in the [metrics].
    pub fn observe(&self) {
        metrics().response_memory.set(self.0.reserved.load(Ordering::Relaxed) as i64);
    }
}

impl Reservation {
    /// The reserved bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to at least `bytes`, by whole steps.
    ///
    /// # Errors
    /// [`MemoryExhausted`]; the reservation keeps its size.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), MemoryExhausted> {
        let target = bytes.next_multiple_of(STEP).min(self.pool.maximum).max(bytes);
        self.add(target.saturating_sub(self.bytes))
    }

    /// Grows to at least `bytes`, even beyond the size of the pool.
    pub fn overdraw_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.pool.reserved.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        self.charge(self.chargeable_bytes());
    }

    /// Binds the reservation to `buffer` until the last clone of the bytes is dropped. Releases unused steps.
    pub fn into_bytes(mut self, buffer: Vec<u8>) -> Bytes {
        self.overdraw_to(buffer.len());
        self.shrink_to(buffer.len().next_multiple_of(STEP));
        Bytes::from_owner(ReservedBuffer { buffer, _reservation: self })
    }

    fn add(&mut self, more: usize) -> Result<(), MemoryExhausted> {
        let Pool { maximum, reserved, .. } = &*self.pool;
        let grown = |reserved: usize| reserved.checked_add(more).filter(|sum| sum <= maximum);
        reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| MemoryExhausted)?;
        self.bytes += more;
        let charged = self.chargeable_bytes();
        if self.exceeds_share(charged) {
            self.shrink_to(self.bytes - more);
            return Err(MemoryExhausted);
        }
        self.charge(charged);
        Ok(())
    }

    /// The bytes to charge to the owner.
    fn chargeable_bytes(&self) -> usize {
        self.owner.map_or(0, |_| self.bytes.saturating_sub(STEP))
    }

    /// Whether a charge of so many bytes would exceed the owner's share, given the owner's other responses.
    fn exceeds_share(&self, charged: usize) -> bool {
        let Some(owner) = self.owner.filter(|_| charged > self.charged) else { return false };
        let Pool { maximum, reserved, percent, .. } = &*self.pool;
        let total = self.pool.lock().get(&owner).copied().unwrap_or(0);
        let other_responses = total - self.charged;
        let other_callers = reserved.load(Ordering::Relaxed).saturating_sub(other_responses + self.bytes);
        let share = maximum.saturating_sub(other_callers) / 100 * percent;
        other_responses > 0 && other_responses + charged > share
    }

    /// Charges so many bytes to the owner.
    fn charge(&mut self, charged: usize) {
        if let Some(owner) = self.owner.filter(|_| charged != self.charged) {
            let mut by_owner = self.pool.lock();
            let total = by_owner.entry(owner).or_default();
            *total = *total - self.charged + charged;
            if *total == 0 {
                by_owner.remove(&owner);
            }
            drop(by_owner);
            self.charged = charged;
        }
    }

    /// Releases the bytes beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.pool.reserved.fetch_sub(less, Ordering::Relaxed);
            self.bytes -= less;
            self.charge(self.chargeable_bytes());
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        // A panic under the lock cannot leave the map inconsistent.
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl AsRef<[u8]> for ReservedBuffer {
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
        let bytes = reservation.into_bytes(vec![0; 100]);
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
        assert_eq!(second.grow_to(1), Err(MemoryExhausted));
        assert_eq!((second.bytes(), reserved(&memory)), (0, 2 * STEP));
        second.overdraw_to(STEP);
        assert_eq!(reserved(&memory), 3 * STEP);
        drop(first);
        assert_eq!(second.grow_to(3 * STEP), Err(MemoryExhausted));
        second.grow_to(3 * STEP - 1).unwrap();
        drop(second);
        assert_eq!(reserved(&memory), 0);
    }

    #[test]
    fn a_buffer_releases_unused_steps() {
        let memory = ResponseMemory::new(ByteSize::mib(1), 100);
        let reservation = memory.reserve(10 * STEP).unwrap();
        let bytes = reservation.into_bytes(vec![0; STEP + 1]);
        assert_eq!(reserved(&memory), 2 * STEP);
        drop(bytes);
        assert_eq!(reserved(&memory), 0);
    }

    #[test]
    fn a_caller_has_a_share_and_one_response_in_any_case() {
        let memory = ResponseMemory::new(ByteSize(20 * STEP as u64), 50);
        let (caller, nobody) = (Some(scope("a")), None);
        let mut first = memory.reservation_of(caller);
        first.grow_to(15 * STEP).unwrap();
        let mut second = memory.reservation_of(caller);
        second.grow_to(STEP).unwrap();
        assert_eq!(second.grow_to(2 * STEP), Err(MemoryExhausted), "more than a half");
        assert_eq!((second.bytes(), reserved(&memory)), (STEP, 16 * STEP));
        let mut other = memory.reservation_of(nobody);
        other.grow_to(3 * STEP).unwrap();
        drop(first);
        second.grow_to(8 * STEP).unwrap();
        let bytes = second.into_bytes(vec![0; 8 * STEP]);
        assert_eq!(memory.0.lock()[&caller], 7 * STEP);
        drop((bytes, other));
        assert!(memory.0.lock().is_empty() && reserved(&memory) == 0);
    }

    fn scope(token: &str) -> Scope {
        crate::caller::Caller::with_token(token, &crate::caller::ScopeKey::random()).identity()
    }
}
