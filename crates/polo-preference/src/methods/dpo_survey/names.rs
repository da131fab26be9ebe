//! The losses by name: what each learns from, needs, and takes where the settings leave its parameters open.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::Reduction;

/// A loss of the survey. Names are TRL's where TRL has the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossName {
    /// DPO; with label smoothing cDPO.
    #[default]
    Sigmoid,
    /// rDPO: unbiased under label noise.
    Robust,
    /// Normalised SLiC (RSO).
    Hinge,
    /// IPO.
    Ipo,
    /// GPO: any `link` of beta D.
    Gpo,
    /// EXO with two answers.
    ExoPair,
    /// NCA with two answers.
    NcaPair,
    /// BCO with two answers and no shift.
    BcoPair,
    /// APO-zero.
    ApoZero,
    /// APO-down.
    ApoDown,
    /// AOT, paired: the sorted margins of a micro-batch.
    Aot,
    /// AOT, unpaired: the sorted log-ratios of a micro-batch.
    AotUnpaired,
    /// DiscoPOP.
    Discopop,
    /// SPPO with hard labels, offline.
    SppoHard,
    /// LN-DPO: means over tokens.
    SigmoidNorm,
    /// DPO-Positive (Smaug).
    Dpop,
    /// Cal-DPO.
    CalDpo,
    /// R-DPO: a price on length.
    RDpo,
    /// ODPO: an offset by the difference of scores; reads scored pairs or lists.
    Odpo,
    /// beta-DPO: beta follows the micro-batch's mean margin, and pairs far from it are left out.
    BetaDpo,
    /// alpha-DPO: SimPO with a margin by the reference.
    AlphaDpo,
    /// chiPO: chi-squared and KL together.
    ChiPo,
    /// ROPO's noise-tolerant loss.
    Ropo,
    /// DPO-RK: Rao-Kupper ties; label 1/2 is a tie.
    DpoRk,
    /// DPO-D: Davidson ties; label 1/2 is a tie.
    DpoD,
    /// NPO: unlearns the rejected answer alone.
    Npo,
    /// CPO.
    Cpo,
    /// SimPO.
    Simpo,
    /// AlphaPO.
    AlphaPo,
    /// ORPO.
    Orpo,
    /// SLiC-HF.
    SlicHf,
    /// SimPER.
    Simper,
    /// SimNPO: NPO without reference.
    SimNpo,
    /// Soft PO's preference term; its KL over samples of the policy is left out.
    SoftPo,
    /// TDPO1: less the difference of the answers' KL divergences from the reference.
    Tdpo1,
    /// TDPO2: the same, only the rejected answer's divergence being held back.
    Tdpo2,
    /// MODPO: a margin by the scores of another objective.
    Modpo,
    /// SafeDPO: safe answers win, and by a margin.
    SafeDpo,
    /// Imitation of the chosen (or best) answer.
    Sft,
    /// InfoNCA over lists.
    InfoNca,
    /// LiPO-lambda over lists.
    Lipo,
    /// RRHF over lists.
    Rrhf,
    /// PRO over lists.
    Pro,
    /// KTO on single answers.
    Kto,
    /// BCO on single answers, shifted by the running mean of the rewards.
    Bco,
    /// APO-zero on single answers.
    ApoZeroUnpaired,
    /// Nash-MD's policy gradient on single answers, whose scores are the logits of their chances against a rival.
    NashMd,
    /// DRO-V on single answers with scores: a regression, with a learnt value of the prompt.
    DroV,
}

/// The rows that a loss learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learns {
    Pairs,
    ScoredPairs,
    Lists,
    Unpaired,
}

/// What a loss needs, and its parameters where the settings leave them open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) learns: Learns,
    pub(super) reference: bool,
    pub(super) imitates: bool,
    /// Of the log-probs that are logged.
    pub(super) reduction: Reduction,
    pub(super) beta: f64,
    pub(super) alpha: f64,
    pub(super) lambda: f64,
    pub(super) gamma: f64,
}

const RATIOS: Facts = Facts {
    learns: Learns::Pairs,
    reference: true,
    imitates: false,
    reduction: Reduction::Sum,
    beta: 0.1,
    alpha: 1.0,
    lambda: 1.0,
    gamma: 0.5,
};
const SUMS: Facts = Facts { reference: false, ..RATIOS };
const MEANS: Facts = Facts { reduction: Reduction::Mean, beta: 2.0, ..SUMS };
const LISTS: Facts = Facts { learns: Learns::Lists, ..RATIOS };
const SINGLE: Facts = Facts { learns: Learns::Unpaired, ..RATIOS };

impl LossName {
    /// Its name in `method.loss`.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a variant without fields is written as its name"),
        }
    }

    pub(super) fn facts(self) -> Facts {
        use LossName::*;
        match self {
            Sigmoid | Robust | Hinge | Ipo | Gpo | ExoPair | NcaPair | BcoPair | ApoZero | ApoDown | Aot
            | AotUnpaired | Discopop | SppoHard | CalDpo | ChiPo | DpoD | Npo => RATIOS,
            SigmoidNorm => Facts { beta: 2.0, ..RATIOS },
            Dpop => Facts { lambda: 5.0, ..RATIOS },
            RDpo => Facts { alpha: 0.01, ..RATIOS },
            Odpo => Facts { learns: Learns::ScoredPairs, ..RATIOS },
            BetaDpo => Facts { alpha: 0.6, ..RATIOS },
            AlphaDpo => Facts { beta: 2.0, alpha: 0.1, ..RATIOS },
            Tdpo1 => RATIOS,
            Tdpo2 => Facts { alpha: 0.5, ..RATIOS },
            Modpo => RATIOS,
            SafeDpo => Facts { gamma: 2.0, ..RATIOS },
            Ropo => Facts { alpha: 0.5, lambda: 0.5, ..RATIOS },
            DpoRk => Facts { alpha: 1.0986, ..RATIOS },
            Cpo | Sft => Facts { imitates: true, ..SUMS },
            Simpo => MEANS,
            AlphaPo => Facts { alpha: 0.25, ..MEANS },
            Orpo => Facts { imitates: true, beta: 0.1, ..MEANS },
            SlicHf => Facts { imitates: true, gamma: 1.0, beta: 1.0, ..SUMS },
            Simper => Facts { beta: 1.0, ..MEANS },
            SimNpo => Facts { beta: 2.5, gamma: 0.0, ..MEANS },
            SoftPo => Facts { beta: 1.0, ..SUMS },
            InfoNca | Lipo => LISTS,
            Rrhf | Pro => Facts { learns: Learns::Lists, imitates: true, beta: 1.0, ..MEANS },
            Kto | Bco | ApoZeroUnpaired | NashMd => SINGLE,
            DroV => Facts { beta: 1.0, ..SINGLE },
        }
    }

    pub(super) fn takes_divergence(self) -> bool {
        use LossName::*;
        matches!(self, Sigmoid | Hinge | Ipo | Gpo | ExoPair | Robust | Discopop | SigmoidNorm)
    }
}
