//! The figures of a run, for a later one to be held against. They are ratios, or sizes: the speed of the machine is not in
//! them.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Result, spread::Spread};

/// What counts as slower: so many in a hundred worse, and out of reach of what was measured before.
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

    /// Whether this one is worse than `before`, beyond the margin and the spreads.
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

/// What got worse since `before`, a line for each.
pub fn worse(now: &[Figure], before: &[Figure]) -> Vec<String> {
    let pairs = now.iter().filter_map(|now| Some((now, before.iter().find(|it| it.name == now.name)?)));
    let worse = pairs.filter(|(now, before)| now.is_worse_than(before));
    worse.map(|(now, before)| format!("{}: {:.3}, was {:.3}", now.name, now.median, before.median)).collect()
}
