//! All methods that the program knows, of all families.

use std::path::{Path, PathBuf};

use polo_control::{
    claims as control_claims,
    methods::{
        a2pr, awac, bc, cal_ql, cql, dqn, edac, iql, mdpo, mdpo_off, percent_bc, ppo, rlpd, sac, sac_n, td3,
        td3_bc, trajectory_weighting, trpo,
    },
    settings as control_settings, train as control_train,
};
use polo_decision::{
    claims as decision_claims,
    methods::{
        adversarial_linear_mdp, adyen_bandits, bag, cover, epsilon_greedy, explore_first, fastcb, linucb,
        martingale_td, r2pvi, randomized_pbrl, regcb, rnd, softmax, squarecb, thompson,
        weighted_tallying_bandits,
    },
    settings as decision_settings, stream, train as decision_train,
};
use polo_preference::{
    claims,
    methods::{
        brain, curry_dpo, dpo, dpo_survey, ipo, rdpo, reward_model, rpo, rso, self_supervised_po, sft, simpo,
        srpo, token_dpo_q, tpo, vpo,
    },
    settings::{MethodSettings, TrainSettings},
    train,
};
use polo_run::{
    Problem, Result,
    card::{self, MethodCard},
    claims::ClaimResult,
    config::{self, KeyDoc, Layers},
    folder::Resume,
    metrics::Metrics,
};

/// One method, as the program meets it.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// What a person is told.
    pub card: &'static MethodCard,
    /// Every setting.
    pub keys: fn() -> Vec<KeyDoc>,
    /// All settings as TOML, explained.
    pub commented_default: fn() -> String,
    /// The settings of all layers together, as TOML.
    pub resolve: fn(&Layers) -> Result<String>,
    /// Trains into a run folder.
    pub train: fn(&Layers, &Path, Resume) -> Result<Outcome>,
    /// Says what training would do.
    pub plan: fn(&Layers) -> Result<Plan>,
    /// Re-tests the paper's central claim: (folder, seeds, quick, what to say on the way).
    pub reproduce: Option<Reproduce>,
}

/// What training left behind.
pub struct Outcome {
    /// The folder of the trained model or policy.
    pub trained: PathBuf,
    /// Metrics of the last evaluation, or of the last step where nothing was evaluated.
    pub metrics: Metrics,
}

/// Lines of a plan: what, how much.
pub type Plan = Vec<(String, String)>;

/// The signature of [`Method::reproduce`].
pub type Reproduce = fn(&Path, u64, bool, &mut dyn FnMut(&str)) -> Result<ClaimResult>;

/// Every method, in the order of `polo methods`.
pub const METHODS: &[Method] = &[
    Method { reproduce: Some(reproduce_srpo), ..preference::<srpo::Srpo>(&srpo::CARD) },
    preference::<dpo::Dpo>(&dpo::CARD),
    Method {
        reproduce: Some(claims::token_dpo_q::reproduce),
        ..preference::<token_dpo_q::TokenDpoQ>(&token_dpo_q::CARD)
    },
    preference::<ipo::Ipo>(&ipo::CARD),
    Method { reproduce: Some(claims::rdpo::reproduce), ..preference::<rdpo::Rdpo>(&rdpo::CARD) },
    Method { reproduce: Some(claims::simpo::reproduce), ..preference::<simpo::Simpo>(&simpo::CARD) },
    Method { reproduce: Some(claims::rpo::reproduce), ..preference::<rpo::Rpo>(&rpo::CARD) },
    Method { reproduce: Some(claims::vpo::reproduce), ..preference::<vpo::Vpo>(&vpo::CARD) },
    Method { reproduce: Some(claims::tpo::reproduce), ..preference::<tpo::Tpo>(&tpo::CARD) },
    Method {
        reproduce: Some(claims::curry_dpo::reproduce),
        ..preference::<curry_dpo::CurryDpo>(&curry_dpo::CARD)
    },
    Method { reproduce: Some(claims::rso::reproduce), ..preference::<rso::Rso>(&rso::CARD) },
    Method { reproduce: Some(claims::brain::reproduce), ..preference::<brain::Brain>(&brain::CARD) },
    Method {
        reproduce: Some(claims::dpo_survey::reproduce),
        ..preference::<dpo_survey::Survey>(&dpo_survey::CARD)
    },
    Method {
        reproduce: Some(claims::self_supervised_po::reproduce),
        ..preference::<self_supervised_po::SelfSupervisedPo>(&self_supervised_po::CARD)
    },
    preference::<reward_model::RewardModel>(&reward_model::CARD),
    preference::<sft::Sft>(&sft::CARD),
    control::<ppo::Ppo>(&ppo::CARD),
    control::<sac::Sac>(&sac::CARD),
    control::<td3::Td3>(&td3::CARD),
    control::<dqn::Dqn>(&dqn::CARD),
    Method { reproduce: Some(control_claims::mdpo::reproduce), ..control::<mdpo::Mdpo>(&mdpo::CARD) },
    control::<mdpo_off::MdpoOff>(&mdpo_off::CARD),
    control::<trpo::Trpo>(&trpo::CARD),
    control::<bc::Bc>(&bc::CARD),
    control::<percent_bc::PercentBc>(&percent_bc::CARD),
    control::<td3_bc::Td3Bc>(&td3_bc::CARD),
    control::<cql::Cql>(&cql::CARD),
    control::<cal_ql::CalQl>(&cal_ql::CARD),
    control::<iql::Iql>(&iql::CARD),
    control::<awac::Awac>(&awac::CARD),
    control::<sac_n::SacN>(&sac_n::CARD),
    control::<edac::Edac>(&edac::CARD),
    control::<rlpd::Rlpd>(&rlpd::CARD),
    Method { reproduce: Some(control_claims::a2pr::reproduce), ..control::<a2pr::A2pr>(&a2pr::CARD) },
    Method {
        reproduce: Some(control_claims::trajectory_weighting::reproduce),
        ..control::<trajectory_weighting::TrajectoryWeighting>(&trajectory_weighting::CARD)
    },
    decisions::<squarecb::SquareCb>(&squarecb::CARD),
    decisions::<fastcb::FastCb>(&fastcb::CARD),
    decisions::<epsilon_greedy::EpsilonGreedy>(&epsilon_greedy::CARD),
    decisions::<softmax::Softmax>(&softmax::CARD),
    decisions::<explore_first::ExploreFirst>(&explore_first::CARD),
    decisions::<bag::Bag>(&bag::CARD),
    decisions::<cover::Cover>(&cover::CARD),
    decisions::<regcb::RegCb>(&regcb::CARD),
    decisions::<rnd::Rnd>(&rnd::CARD),
    decisions::<linucb::LinUcb>(&linucb::CARD),
    decisions::<thompson::Thompson>(&thompson::CARD),
    Method {
        reproduce: Some(decision_claims::adyen_bandits::reproduce),
        ..solver::<adyen_bandits::AdyenBandits>(&adyen_bandits::CARD)
    },
    Method {
        reproduce: Some(decision_claims::weighted_tallying_bandits::reproduce),
        ..solver::<weighted_tallying_bandits::WeightedTallyingBandits>(&weighted_tallying_bandits::CARD)
    },
    Method {
        reproduce: Some(decision_claims::adversarial_linear_mdp::reproduce),
        ..solver::<adversarial_linear_mdp::AdversarialLinearMdp>(&adversarial_linear_mdp::CARD)
    },
    Method { reproduce: Some(decision_claims::r2pvi::reproduce), ..solver::<r2pvi::R2pvi>(&r2pvi::CARD) },
    Method {
        reproduce: Some(decision_claims::randomized_pbrl::reproduce),
        ..solver::<randomized_pbrl::RandomizedPbrl>(&randomized_pbrl::CARD)
    },
    Method {
        reproduce: Some(decision_claims::martingale_td::reproduce),
        ..solver::<martingale_td::MartingaleTd>(&martingale_td::CARD)
    },
];

/// A method of the offline-pairs regime.
const fn preference<M: MethodSettings>(card: &'static MethodCard) -> Method {
    Method {
        card,
        keys: config::keys::<TrainSettings<M>>,
        commented_default: config::commented_default::<TrainSettings<M>>,
        resolve: |layers| Ok(config::load::<TrainSettings<M>>(layers)?.resolved),
        plan: |layers| train::plan(&config::load::<TrainSettings<M>>(layers)?.settings),
        train: |layers, out, resume| {
            let outcome = train::train(&config::load::<TrainSettings<M>>(layers)?, M::SLUG, out, resume)?;
            Ok(Outcome { trained: outcome.final_model, metrics: outcome.metrics })
        },
        reproduce: None,
    }
}

/// A method of control.
const fn control<M: control_settings::MethodSettings>(card: &'static MethodCard) -> Method {
    Method {
        card,
        keys: config::keys::<control_settings::TrainSettings<M>>,
        commented_default: config::commented_default::<control_settings::TrainSettings<M>>,
        resolve: |layers| Ok(config::load::<control_settings::TrainSettings<M>>(layers)?.resolved),
        plan: |layers| {
            control_train::plan(&config::load::<control_settings::TrainSettings<M>>(layers)?.settings)
        },
        train: |layers, out, resume| {
            let loaded = config::load::<control_settings::TrainSettings<M>>(layers)?;
            let outcome = control_train::train(&loaded, out, resume)?;
            Ok(Outcome { trained: outcome.left, metrics: outcome.metrics })
        },
        reproduce: None,
    }
}

/// A scheme of exploration that learns from a log of decisions.
const fn decisions<E: decision_claims::streams::Tried>(card: &'static MethodCard) -> Method {
    Method {
        card,
        keys: config::keys::<stream::StreamSettings<E>>,
        commented_default: config::commented_default::<stream::StreamSettings<E>>,
        resolve: |layers| Ok(config::load::<stream::StreamSettings<E>>(layers)?.resolved),
        plan: |layers| stream::plan(&config::load::<stream::StreamSettings<E>>(layers)?.settings),
        train: |layers, out, resume| {
            let outcome = stream::train(&config::load::<stream::StreamSettings<E>>(layers)?, out, resume)?;
            Ok(Outcome { trained: outcome.left, metrics: outcome.metrics })
        },
        reproduce: Some(decision_claims::streams::reproduce::<E>),
    }
}

/// A method for decisions that comes with its problem.
const fn solver<M: decision_settings::MethodSettings>(card: &'static MethodCard) -> Method {
    Method {
        card,
        keys: config::keys::<decision_settings::TrainSettings<M>>,
        commented_default: config::commented_default::<decision_settings::TrainSettings<M>>,
        resolve: |layers| Ok(config::load::<decision_settings::TrainSettings<M>>(layers)?.resolved),
        plan: |layers| {
            decision_train::plan(&config::load::<decision_settings::TrainSettings<M>>(layers)?.settings)
        },
        train: |layers, out, resume| {
            let loaded = config::load::<decision_settings::TrainSettings<M>>(layers)?;
            let outcome = decision_train::train(&loaded, out, resume)?;
            Ok(Outcome { trained: outcome.left, metrics: outcome.metrics })
        },
        reproduce: None,
    }
}

fn reproduce_srpo(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let budget = if quick { claims::srpo::Budget::quick() } else { claims::srpo::Budget::full() };
    claims::srpo::reproduce(folder, seeds, &budget, quick, say)
}

/// Experiments that are about no single method.
pub const STUDIES: &[(&str, Reproduce)] = &[("off-policy-evaluation", decision_claims::ope::reproduce)];

/// The cards of all methods.
pub fn cards() -> Vec<MethodCard> {
    METHODS.iter().map(|method| *method.card).collect()
}

/// The method of that name.
///
/// # Errors
/// [`polo_run::Kind::Usage`], with the nearest name.
pub fn find(slug: &str) -> Result<&'static Method> {
    if STUDIES.iter().any(|(study, _)| *study == slug) {
        return Err(Problem::usage(format!("`{slug}` is an experiment about no single method"))
            .hint(format!("`polo reproduce {slug}`")));
    }
    let cards = cards();
    let known = card::find(slug, &cards)?;
    Ok(&METHODS[cards.iter().take_while(|card| card.slug != known.slug).count()])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_of_a_family_is_registered_once() {
        let ours: Vec<_> = cards().iter().map(|card| card.slug).collect();
        let families: BTreeSet<_> = polo_preference::methods::METHODS
            .iter()
            .chain(polo_control::methods::METHODS)
            .chain(polo_decision::methods::METHODS)
            .map(|card| card.slug)
            .collect();
        assert_eq!(ours.iter().copied().collect::<BTreeSet<_>>(), families);
        assert_eq!(ours.len(), families.len());
    }

    #[test]
    fn a_method_is_found_by_its_own_name() {
        for method in METHODS {
            assert_eq!(find(method.card.slug).unwrap().card.title, method.card.title);
        }
    }
}
