//! The shared Redis fails: replicas go on alone, and agree again afterwards.
