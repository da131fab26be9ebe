//! The methods: one file each, to be read from top to bottom beside the paper.

use polo_run::{Problem, Result, card::MethodCard};

use crate::{
    explore::Explorer,
    stream::{ExplorerSettings, saved::scheme_of},
};

pub mod adversarial_linear_mdp;
pub mod adyen_bandits;
pub mod bag;
pub mod cover;
pub mod epsilon_greedy;
pub mod explore_first;
pub mod fastcb;
pub mod linucb;
pub mod martingale_td;
pub mod r2pvi;
pub mod randomized_pbrl;
pub mod regcb;
pub mod rnd;
pub mod softmax;
pub mod squarecb;
pub mod thompson;
pub mod weighted_tallying_bandits;

/// What the methods of this crate learn from.
pub const FAMILY: &str = "decisions (bandits, tables, linear models)";

/// The cards of all methods of the family.
pub const METHODS: &[MethodCard] = &[
    squarecb::CARD,
    fastcb::CARD,
    epsilon_greedy::CARD,
    softmax::CARD,
    explore_first::CARD,
    bag::CARD,
    cover::CARD,
    regcb::CARD,
    rnd::CARD,
    linucb::CARD,
    thompson::CARD,
    adversarial_linear_mdp::CARD,
    adyen_bandits::CARD,
    martingale_td::CARD,
    r2pvi::CARD,
    randomized_pbrl::CARD,
    weighted_tallying_bandits::CARD,
];

/// The scheme of exploration of that name, with settings as a run saved them.
///
/// # Errors
/// A name that is none; settings that are not the scheme's.
pub fn scheme(slug: &str, settings: &serde_json::Value) -> Result<Box<dyn Explorer>> {
    type Read = fn(&serde_json::Value) -> Result<Box<dyn Explorer>>;
    let schemes: [(&str, Read); 11] = [
        (squarecb::SquareCb::SLUG, scheme_of::<squarecb::SquareCb>),
        (fastcb::FastCb::SLUG, scheme_of::<fastcb::FastCb>),
        (epsilon_greedy::EpsilonGreedy::SLUG, scheme_of::<epsilon_greedy::EpsilonGreedy>),
        (softmax::Softmax::SLUG, scheme_of::<softmax::Softmax>),
        (explore_first::ExploreFirst::SLUG, scheme_of::<explore_first::ExploreFirst>),
        (bag::Bag::SLUG, scheme_of::<bag::Bag>),
        (cover::Cover::SLUG, scheme_of::<cover::Cover>),
        (regcb::RegCb::SLUG, scheme_of::<regcb::RegCb>),
        (rnd::Rnd::SLUG, scheme_of::<rnd::Rnd>),
        (linucb::LinUcb::SLUG, scheme_of::<linucb::LinUcb>),
        (thompson::Thompson::SLUG, scheme_of::<thompson::Thompson>),
    ];
    match schemes.iter().find(|(name, _)| *name == slug) {
        Some((_, read)) => read(settings),
        None => Err(Problem::input(format!("`{slug}` is no scheme of exploration"))),
    }
}
