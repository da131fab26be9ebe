//! Percent BC: behaviour cloning of the best episodes alone, a baseline of Chen et al. 2021, arXiv 2106.01345.
//!
//! It is [`bc`](super::bc) on data of which only the best share of the episodes by return is drawn.

use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Control, Learner, Source,
    bc::{self, Bc},
    trajectory_weighting::Sampling,
};
use crate::{data::Wishes, settings::MethodSettings};

/// Settings of `polo train percent-bc`: those of [`Bc`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PercentBc(Bc);

impl Settings for PercentBc {
    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

impl MethodSettings for PercentBc {
    const SLUG: &'static str = CARD.slug;
    const SAMPLING: Sampling = Sampling::Top;
}

impl Control for PercentBc {
    fn source(&self) -> Source {
        self.0.source()
    }

    fn wishes(&self) -> Wishes {
        self.0.wishes()
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        self.0.learner(observations, actions, seeds)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "percent-bc",
    title: "Behaviour cloning of the best episodes",
    summary: "do what the best episodes of the data do",
    claim: "cloning the best tenth is a strong baseline where data is mixed; here a baseline",
    equation: "L of bc, on the share data.top of the episodes with the highest return",
    paper: "Chen et al.: Decision Transformer (the baseline `%BC`)",
    arxiv: "2106.01345",
    year: 2021,
    reach_for: "data of mixed quality with some good episodes",
    avoid_when: "no episode is good as a whole: td3-bc or iql put good parts together",
    failure_signs: &["it falls behind bc: too few episodes are kept; raise data.top"],
    variants: &[("the best quarter", "data.top = 0.25")],
    ..bc::CARD
};
