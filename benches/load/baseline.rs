//! The figures of a run, stored as a baseline for later runs. They are ratios or sizes, and thus independent of the
//! machine's speed.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Result, spread::Spread};

/// The tolerated change of a median. A regression also lies outside the baseline's spread.
const MARGIN: f64 = 0.10;

#[derive(Clone, Serialize, Deserialize)]
pub struct Figure {
    name: String,
    median: f64,
    least: f64,
    most: f64,
    higher_is_better: bool,
}

impl Figure {
    pub fn higher_is_better(name: String, spread: Spread) -> Self {
        Self::new(name, spread, true)
    }

    pub fn lower_is_better(name: String, spread: Spread) -> Self {
        Self::new(name, spread, false)
    }

    fn new(name: String, Spread { median, least, most }: Spread, higher_is_better: bool) -> Self {
        Self { name, median, least, most, higher_is_better }
    }

    /// Whether this figure is worse than `before` by more than the margin, without an overlap of the spreads.
    fn is_worse_than(&self, before: &Self) -> bool {
        if self.higher_is_better {
            self.median < before.median * (1.0 - MARGIN) && self.most < before.least
        } else {
            self.median > before.median * (1.0 + MARGIN) && self.least > before.most
        }
    }
}

pub fn write(path: &Path, figures: &[Figure]) -> Result<()> {
    Ok(fs::write(path, serde_json::to_string_pretty(figures)? + "\n")?)
}

pub fn read(path: &Path) -> Result<Vec<Figure>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Returns one line per figure that regressed since `before`.
pub fn regressions(now: &[Figure], before: &[Figure]) -> Vec<String> {
    let pairs = now.iter().filter_map(|now| Some((now, before.iter().find(|it| it.name == now.name)?)));
    let worse = pairs.filter(|(now, before)| now.is_worse_than(before));
    worse.map(|(now, before)| format!("{}: {:.3}, was {:.3}", now.name, now.median, before.median)).collect()
}
