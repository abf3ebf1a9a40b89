//! The Redis that the replicas share: a single one, or one with a replica and sentinels.

use super::faults::Fault;
use crate::support::{Redis, Sentinels};

pub enum SharedRedis {
    /// Each gateway reaches it through a proxy of its own.
    Single(Box<Redis>),
    Sentinels(Box<Sentinels>),
}

impl SharedRedis {
    pub async fn single() -> Self {
        Self::Single(Box::new(Redis::start().await))
    }

    pub async fn with_sentinels() -> Self {
        Self::Sentinels(Box::new(Sentinels::start(1).await))
    }

    pub fn description(&self) -> &'static str {
        match self {
            Self::Single(_) => "a single Redis",
            Self::Sentinels(_) => "a Redis, its replica and a sentinel",
        }
    }

    /// All faults that can happen to it and to the gateways.
    pub fn faults(&self) -> &'static [Fault] {
        match self {
            Self::Single(_) => &[
                Fault::KillRedis,
                Fault::EmptyRedis,
                Fault::SuspendRedis,
                Fault::FlushRedis,
                Fault::CutOffOne,
                Fault::CutOffAll,
                Fault::Interrupt,
                Fault::StopGateway,
                Fault::KillGateway,
                Fault::SuspendGateway,
            ],
            Self::Sentinels(_) => {
                &[Fault::FailOver, Fault::KillMaster, Fault::SuspendMaster, Fault::StopGateway]
            }
        }
    }
}
