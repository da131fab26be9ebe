//! Who is who: the methods of the survey's taxonomy figure, their formulas, and how to run them here.
//!
//! The survey sorts methods by the part of DPO that they change; a method may stand at several places. Symbols of the
//! formulas: see [`super`]; S = log sigmoid, relu(x) = max(0, x), sg = without gradient, e = label smoothing.
//! `polo methods --variants` prints [`table`].

use Run::{Loss, Method, NotBuilt, Rounds, Setting};

/// How a method is run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// By a method of its own, once there is one of that name.
    Method(&'static str),
    /// By `method.loss` of `dpo-survey`.
    Loss(&'static str),
    /// By `dpo-survey` with these settings.
    Setting(&'static str),
    /// By other commands, in this order, or on data of a kind of its own.
    Rounds(&'static str),
    /// Not at all.
    NotBuilt,
}

/// One published method.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name in the survey; where the survey uses one name twice, with what tells them apart.
    pub name: &'static str,
    /// Its places: axis (1 data strategy, 2 learning framework, 3 constraint mechanism, 4 model property), branch,
    /// leaf.
    pub places: &'static [&'static str],
    /// How to run it.
    pub run: Run,
    /// TRL's name; empty where TRL 1.16 has none.
    pub trl: &'static str,
    /// Loss of an example; empty where no formula is known here.
    pub formula: &'static str,
}

const HETEROGENEITY: &str = "1 quality/heterogeneity";
const DISTINGUISHABILITY: &str = "1 quality/distinguishability";
const NOISE: &str = "1 quality/noise";
const POINT: &str = "1 feedback/point";
const PAIR: &str = "1 feedback/pair";
const LIST: &str = "1 feedback/list";
const TOKEN: &str = "1 granularity/token";
const STEP: &str = "1 granularity/step";
const SENTENCE: &str = "1 granularity/sentence";
const TURN: &str = "1 granularity/turn";
const OFFLINE: &str = "2 paradigm/offline";
const ONLINE: &str = "2 paradigm/online";
const ACTIVE: &str = "2 paradigm/active";
const MULTI: &str = "2 objective/multi";
const SELF_PLAY: &str = "2 objective/self-play";
const DYNAMIC: &str = "3 reference/dynamic";
const FREE: &str = "3 reference/free";
const DIVERSITY: &str = "3 divergence/diversity";
const GENERALISATION: &str = "3 divergence/generalisation";
const SAFETY: &str = "3 safety";
const SHIFT: &str = "4 generation/distribution shift";
const LENGTH: &str = "4 generation/length";
const COLLAPSE: &str = "4 optimisation/likelihood collapse";
const TAX: &str = "4 optimisation/alignment tax";

const fn with(
    name: &'static str,
    places: &'static [&'static str],
    run: Run,
    trl: &'static str,
    formula: &'static str,
) -> Variant {
    Variant { name, places, run, trl, formula }
}

/// One that is not built, and of which no more than its place is recorded.
const fn place(name: &'static str, places: &'static [&'static str]) -> Variant {
    with(name, places, NotBuilt, "", "")
}

/// Every method with a formula, then the rest by place.
pub const VARIANTS: &[Variant] = &[
    with("DPO", &[PAIR, SENTENCE, OFFLINE], Method("dpo"), "sigmoid", "-S(beta D)"),
    with("cDPO", &[NOISE], Setting("method.label_smoothing = 0.1"), "", "-(1-e) S(beta D) - e S(-beta D)"),
    with("rDPO", &[NOISE], Method("rdpo"), "robust", "[-(1-e) S(beta D) + e S(-beta D)] / (1-2e)"),
    with("SLiC normalised (RSO)", &[ONLINE], Loss("hinge"), "hinge", "relu(1 - beta D)"),
    with("IPO", &[PAIR], Method("ipo"), "ipo", "(D - 1/(2 beta))^2; TRL: D of means over tokens"),
    with(
        "GPO (generalised)",
        &[POINT, GENERALISATION],
        Loss("gpo"),
        "",
        "f(beta D), f(z) = -S(z), relu(1-z), (1-z)^2, relu(1-z)^2, exp(-z), sigmoid(-z)^2",
    ),
    with(
        "EXO",
        &[GENERALISATION],
        Loss("exo-pair"),
        "exo_pair",
        "q log(q/(1-e)) + (1-q) log((1-q)/e), q = sigmoid(beta D)",
    ),
    with(
        "NCA",
        &[POINT],
        Loss("nca-pair"),
        "nca_pair",
        "-S(beta rho_w) - S(-beta rho_w)/2 - S(-beta rho_l)/2",
    ),
    with("InfoNCA", &[LIST], Loss("info-nca"), "", "-sum_k softmax(s/alpha)_k log softmax(beta rho)_k"),
    with(
        "BCO",
        &[POINT],
        Loss("bco"),
        "",
        "good: -S(beta rho - d), bad: -S(d - beta rho), d = running mean of beta rho",
    ),
    with("BCO of pairs", &[POINT], Loss("bco-pair"), "bco_pair", "-S(beta rho_w) - S(-beta rho_l)"),
    with(
        "KTO",
        &[POINT],
        Loss("kto"),
        "kto",
        "good: lam_D (1 - sigmoid(beta (rho - z))), bad: lam_U (1 - sigmoid(beta (z - rho))), \
         z = sg max(0, mean of rho over mismatched answers)",
    ),
    with(
        "APO (anchored), zero",
        &[COLLAPSE],
        Loss("apo-zero"),
        "apo_zero",
        "1 - sigmoid(beta rho_w) + sigmoid(beta rho_l)",
    ),
    with(
        "APO (anchored), zero, unpaired",
        &[COLLAPSE, POINT],
        Loss("apo-zero-unpaired"),
        "apo_zero_unpaired",
        "good: 1 - sigmoid(beta rho), bad: sigmoid(beta rho)",
    ),
    with(
        "APO (anchored), down",
        &[COLLAPSE],
        Loss("apo-down"),
        "apo_down",
        "sigmoid(beta rho_w) + 1 - sigmoid(beta D)",
    ),
    with(
        "AOT",
        &[POINT],
        Loss("aot"),
        "aot",
        "cDPO of d = sorted(L_w - L_l) - sorted(R_w - R_l) over the batch, R = log ref",
    ),
    with(
        "AOT, unpaired",
        &[POINT],
        Loss("aot-unpaired"),
        "aot_unpaired",
        "cDPO of d = sorted(rho_w) - sorted(rho_l) over the batch",
    ),
    with(
        "DiscoPOP",
        &[OFFLINE],
        Loss("discopop"),
        "discopop",
        "(1-t)(-S(z)) + t exp(-z), z = beta D, t = sigmoid(z/tau)",
    ),
    with(
        "SPPO",
        &[SELF_PLAY],
        Method("sppo"),
        "sppo_hard",
        "hard labels (here `sppo-hard`): (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2",
    ),
    with("SPPO, hard, offline", &[SELF_PLAY], Loss("sppo-hard"), "sppo_hard", "as SPPO"),
    with(
        "RPO (regularised)",
        &[OFFLINE, COLLAPSE],
        Method("rpo"),
        "sigmoid + sft",
        "-S(beta D) + eta beta nll_w",
    ),
    with(
        "IRPO (Iterative RPO)",
        &[SENTENCE, ONLINE],
        Setting("method.also = [\"sft\"]"),
        "sigmoid + sft",
        "-S(beta D) + alpha nll_w",
    ),
    with("LN-DPO", &[LENGTH], Loss("sigmoid-norm"), "sigmoid_norm", "-S(beta (rho_w/n_w - rho_l/n_l))"),
    with(
        "LD-DPO",
        &[LENGTH],
        Setting("method.tokens = \"ld\""),
        "ld_alpha",
        "any loss of L' = sum_{t<=p} + alpha sum_{t>p}, p = min(n_w, n_l), both models",
    ),
    with(
        "SamPO",
        &[LENGTH],
        Setting("method.tokens = \"sampo\""),
        "",
        "any loss of L over min(n_w, n_l) random tokens of each answer",
    ),
    with(
        "D2PO (decay)",
        &[TOKEN, LENGTH],
        Setting("method.tokens = \"decay\""),
        "",
        "any loss of L with weights decay^t",
    ),
    with(
        "WPO",
        &[ONLINE, SHIFT],
        Setting("method.weighting = true"),
        "use_weighting",
        "sg(v_w v_l) * any loss, v = exp(mean_t[log pi(y_t) - log sum_a pi(a)^2])",
    ),
    with(
        "f-DPO",
        &[DIVERSITY],
        Setting("method.divergence = \"js\""),
        "f_divergence_type",
        "-S(beta f'(e^rho_w) - beta f'(e^rho_l)), f' = rho | 1 - e^-rho | log 2 + S(rho) | (e^((a-1) rho) - 1)/(a-1)",
    ),
    with("SimPO", &[FREE, LENGTH], Method("simpo"), "simpo", "-S(beta (m_w - m_l) - gamma)"),
    with(
        "CPO (contrastive)",
        &[OFFLINE, FREE],
        Loss("cpo"),
        "CPO sigmoid",
        "-S(beta (L_w - L_l)) + lambda nll_w",
    ),
    with(
        "TPO (triple)",
        &[OFFLINE, FREE],
        Method("tpo"),
        "TPO sigmoid, tpo-l",
        "CPO's or SimPO's pair term + alpha nll(gold)",
    ),
    with(
        "AlphaPO",
        &[FREE, LENGTH],
        Loss("alpha-po"),
        "CPO alpha",
        "-S(beta (r_w - r_l) - gamma), r = (1 - p^-a)/a, p = e^m",
    ),
    with("ORPO", &[OFFLINE, FREE], Loss("orpo"), "ORPO", "nll_w - beta S(o_w - o_l), o = m - log(1 - e^m)"),
    with("SLiC-HF", &[OFFLINE], Loss("slic-hf"), "", "relu(gamma - L_w + L_l) + lambda nll_w"),
    with("RRHF", &[LENGTH, LIST], Loss("rrhf"), "", "sum_{s_i<s_j} relu(m_i - m_j) + lambda nll(best)"),
    with(
        "PRO",
        &[LIST],
        Loss("pro"),
        "",
        "sum_k -log(e^(m_k/T_kk) / (e^(m_k/T_kk) + sum_{i>k} e^(m_i/T_ki))) + lambda nll(best), T_ki = 1/(s_k - s_i)",
    ),
    with("DPO-Positive (DPOP)", &[COLLAPSE], Loss("dpop"), "", "-S(beta (D - lambda relu(-rho_w)))"),
    with(
        "Cal-DPO",
        &[POINT, COLLAPSE],
        Loss("cal-dpo"),
        "",
        "-S(D) + (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2",
    ),
    with("R-DPO (length)", &[LENGTH], Loss("r-dpo"), "", "-S(beta D + alpha (n_w - n_l))"),
    with("ODPO", &[DISTINGUISHABILITY], Loss("odpo"), "", "-S(beta D - alpha log(s_w - s_l))"),
    with(
        "beta-DPO",
        &[DISTINGUISHABILITY],
        Loss("beta-dpo"),
        "",
        "DPO at sg[beta (1 + alpha (mean M - M0))], M = beta D, of the share `keep` of pairs nearest M0",
    ),
    with(
        "alpha-DPO",
        &[DISTINGUISHABILITY],
        Loss("alpha-dpo"),
        "",
        "-S(beta (m_w - m_l) - sg(gamma + alpha z)), z = beta (rho_w/n_w - rho_l/n_l) normalised over the batch",
    ),
    with(
        "chiPO",
        &[GENERALISATION],
        Loss("chi-po"),
        "",
        "-S(clip(beta (phi_w - phi_l), +-2R)), phi = e^rho + rho",
    ),
    with("SimPER", &[FREE], Loss("simper"), "", "-exp(m_w) + exp(m_l)"),
    with("NPO", &[PAIR], Loss("npo"), "", "-(2/beta) S(-beta rho_l)"),
    with("SimNPO", &[PAIR], Loss("sim-npo"), "", "-(2/beta) S(-beta m_l - gamma)"),
    with(
        "SPO (soft)",
        &[GENERALISATION],
        Loss("soft-po"),
        "",
        "-S(alpha (L_w - L_l))/alpha; its KL over samples of the policy is not built",
    ),
    with("ROPO", &[NOISE, ONLINE], Loss("ropo"), "", "-alpha S(beta D) + lambda sigmoid(-beta D)"),
    with(
        "DPO-RK",
        &[PAIR],
        Loss("dpo-rk"),
        "",
        "P(w) = sigmoid(z - a), P(l) = sigmoid(-z - a), P(tie) = the rest; -log of what was seen, z = beta D",
    ),
    with(
        "DPO-D",
        &[PAIR],
        Loss("dpo-d"),
        "",
        "P(w) = 1/(1 + e^-z + 2a e^(-z/2)), P(tie) = 2a e^(-z/2) P(w); -log of what was seen",
    ),
    with(
        "LiPO",
        &[LIST],
        Loss("lipo"),
        "",
        "sum_{s_i>s_j} |G_i - G_j| |1/d_i - 1/d_j| (-S(beta (rho_i - rho_j))), G = 2^s - 1, d = log(1 + rank by rho)",
    ),
    with(
        "MPO's mixture (TRL's guide)",
        &[],
        Setting("method.also = [\"bco-pair\", \"sft\"]"),
        "sigmoid + bco_pair + sft",
        "0.8 DPO + 0.2 BCO of pairs + nll_w: method.weights = [0.8, 0.2, 1.0]",
    ),
    with(
        "TDPO1",
        &[TOKEN],
        Loss("tdpo1"),
        "",
        "-S(beta D - beta (K_l - K_w)), K = sum_t KL(ref, pi) of the next-token distributions",
    ),
    with("TDPO2", &[TOKEN], Loss("tdpo2"), "", "-S(beta D - alpha beta (K_l - sg K_w)), K as in TDPO1"),
    with(
        "TIS-DPO",
        &[TOKEN],
        Setting("method.tokens = \"tis\""),
        "",
        "any loss of L = sum_t u_t log pi(y_t), u = exp(+-mu clip(log better(y_t) - log worse(y_t))); eta is left out",
    ),
    with("SparsePO", &[TOKEN], NotBuilt, "", "TDPO with learnt token masks"),
    with(
        "Step-DPO",
        &[STEP],
        Rounds("polo train dpo, on rows in steps"),
        "",
        "DPO on (prompt + correct steps; next correct, first wrong step)",
    ),
    with(
        "SPIN",
        &[SELF_PLAY],
        Rounds("polo sample, pairs --against, train dpo"),
        "",
        "DPO with w by people, l by the last policy, which is the reference",
    ),
    with(
        "DNO",
        &[SELF_PLAY],
        Rounds("polo sample, score, pairs, train dpo"),
        "",
        "cross-entropy of sigmoid(beta D) to P(w > l), online",
    ),
    with(
        "Nash-MD",
        &[SELF_PLAY],
        Loss("nash-md"),
        "",
        "-sg(P(y > y') - 1/2 - beta rho) log pi(y), rival y' from pi^(1-b) ref^b: polo sample --mix-with",
    ),
    with(
        "IPO-MD",
        &[SELF_PLAY],
        Rounds("polo sample --mix-with, score, pairs, train ipo"),
        "",
        "IPO on samples of the geometric mixture of policy and reference",
    ),
    with(
        "TR-DPO",
        &[DYNAMIC],
        Setting("method.sync_every = 512"),
        "sync_ref_model",
        "ref <- a pi + (1-a) ref every tau steps",
    ),
    with(
        "sDPO",
        &[DISTINGUISHABILITY, OFFLINE],
        Rounds("polo train curry-dpo, method.order = \"random\""),
        "",
        "stages, the last stage's policy as reference",
    ),
    with(
        "Curri-DPO",
        &[DISTINGUISHABILITY, OFFLINE, DYNAMIC],
        Method("curry-dpo"),
        "",
        "stages from large to small differences of scores",
    ),
    with("DRO", &[POINT], Loss("dro-v"), "", "(s - V(x) - beta rho)^2 / 2, V learnt"),
    with(
        "MODPO",
        &[MULTI],
        Loss("modpo"),
        "",
        "-S((beta D - alpha (s_w - s_l)) / lambda), s of another objective",
    ),
    with(
        "SafeDPO",
        &[SAFETY],
        Loss("safe-dpo"),
        "",
        "pairs relabelled by safety, -S(beta D - (h_l - h_w) gamma), h = 1 for unsafe",
    ),
    with(
        "GRPO (group-robust)",
        &[HETEROGENEITY],
        Setting("method.group_step = 0.01"),
        "",
        "sum over groups of q_g * mean loss, q_g ~ exp(step * past losses of g): towards the max over groups",
    ),
    with(
        "MinMax-DPO",
        &[HETEROGENEITY],
        NotBuilt,
        "",
        "EM over clusters of annotators, least regret over them",
    ),
    with("XPO", &[ONLINE], Method("xpo"), "", "DPO online with a bonus of exploration"),
    with(
        "HyPO (hybrid)",
        &[ONLINE],
        Method("hypo"),
        "",
        "DPO on pairs and a reverse KL on samples of the policy",
    ),
    with("COMAL", &[ONLINE], Method("inpo"), "", "INPO with the last policies as reference"),
    with("APO (accelerated)", &[ONLINE], Method("apo"), "", "iterated DPO with Nesterov's momentum"),
    with("MCTS-DPO", &[STEP, ONLINE], Method("mcts-dpo"), "", "DPO on pairs of steps from tree search"),
    with(
        "DPO of tokens (Rafailov et al.)",
        &[TOKEN, COLLAPSE],
        Method("token-dpo-q"),
        "",
        "DPO as a Q-function",
    ),
    with("SPO (minimax)", &[SELF_PLAY], Method("minimax-spo"), "", "self-play on preferences among samples"),
    with("RTO", &[TOKEN], Method("rto"), "", "PPO on DPO's token rewards"),
    with("RSO", &[ONLINE], Method("rso"), "hinge", "pairs by rejection sampling from the optimal policy"),
    with("VPO", &[ONLINE], Method("vpo"), "", "DPO plus a signed term of the value"),
    with("mDPO", &[LIST], Method("mdpo"), "", "DPO with pairs of images"),
    with("SRPO", &[SELF_PLAY, SHIFT], Method("srpo"), "", "see `polo explain srpo`"),
    place("MPO", &[DISTINGUISHABILITY, ONLINE, DYNAMIC]),
    place("MallowsPO", &[HETEROGENEITY]),
    place("GDPO", &[HETEROGENEITY, DISTINGUISHABILITY]),
    place("DPO-rc", &[DISTINGUISHABILITY]),
    place("fDPO", &[DISTINGUISHABILITY]),
    place("Ada-DPO", &[DISTINGUISHABILITY]),
    place("Sr-DPO", &[DISTINGUISHABILITY]),
    place("GaPO", &[DISTINGUISHABILITY]),
    place("PerpCorrect", &[NOISE]),
    place("SPA", &[NOISE]),
    place("ULMA", &[POINT, OFFLINE]),
    place("BMC", &[PAIR]),
    place("IOPO", &[PAIR]),
    place("PMPO", &[PAIR]),
    place("SAPO", &[PAIR]),
    place("D2O", &[PAIR]),
    place("Panacea", &[LIST]),
    place("LIRE", &[LIST]),
    place("OPO", &[LIST]),
    place("DRPO", &[LIST]),
    place("RPO (list)", &[LIST]),
    place("TODO", &[LIST]),
    place("SePO", &[TOKEN]),
    place("EPO", &[TOKEN]),
    place("SCDPO", &[STEP]),
    place("CPO (chain)", &[STEP]),
    place("TPO (tree)", &[STEP]),
    place("RDPO (step)", &[STEP]),
    place("DAPO (step)", &[STEP]),
    place("MAPO", &[SENTENCE]),
    place("EURUS", &[SENTENCE]),
    place("FACTALIGN", &[SENTENCE]),
    place("M-DPO", &[TURN, DYNAMIC]),
    place("ETO", &[TURN, ONLINE]),
    place("SDPO", &[TURN]),
    place("AgentQ", &[TURN]),
    place("DMPO", &[TURN, LENGTH]),
    place("PAFT", &[OFFLINE, TAX]),
    place("Linear Alignment", &[OFFLINE]),
    place("ICDPO", &[OFFLINE]),
    place("OAIF", &[ONLINE]),
    place("OFS-DPO", &[ONLINE]),
    place("Self-Rewarding", &[ONLINE]),
    place("BPO", &[ONLINE]),
    place("RS-DPO", &[ONLINE]),
    place("OPTUNE", &[ONLINE]),
    place("DPO-ST", &[ONLINE]),
    place("Xiong et al.", &[ONLINE]),
    place("Xu et al. (cringe)", &[ONLINE]),
    place("SeRA", &[ONLINE]),
    place("CREAM", &[ONLINE]),
    place("D2PO (online)", &[ONLINE]),
    place("DLMA", &[ONLINE]),
    place("SELM", &[ONLINE, SHIFT]),
    place("COPO", &[ONLINE]),
    place("AIPO", &[ONLINE]),
    place("APL", &[ACTIVE]),
    place("divAPO", &[ACTIVE]),
    place("ADPO (active)", &[ACTIVE]),
    place("SPO (multi-objective)", &[MULTI]),
    place("MOSLIM", &[MULTI]),
    place("HPO", &[MULTI]),
    place("CPO (controllable)", &[MULTI]),
    place("DRDO", &[MULTI]),
    place("BoNBoN", &[SELF_PLAY]),
    place("DNPO", &[SELF_PLAY]),
    place("Slocum et al.", &[DIVERSITY]),
    place("DPO-Kernels", &[GENERALISATION]),
    place("FlipGuard", &[GENERALISATION]),
    place("FPO", &[GENERALISATION]),
    place("QDPO", &[GENERALISATION]),
    place("SACPO", &[SAFETY]),
    place("C-DPO", &[SAFETY]),
    place("ADPO (safety)", &[SAFETY]),
    place("Lee et al.", &[SAFETY]),
    place("Zhang et al. (backtracking)", &[SAFETY]),
    place("NS-DPO", &[SHIFT]),
    place("e-DPO", &[SHIFT, COLLAPSE]),
    place("Lin et al. (generalisation)", &[SHIFT]),
    place("Tajwar et al.", &[SHIFT]),
    place("LIFT", &[LENGTH]),
    place("LongPO", &[LENGTH]),
    place("Flex-DPO", &[COLLAPSE]),
    place("Feng et al.", &[COLLAPSE]),
    place("Razin et al.", &[COLLAPSE]),
    place("Lin et al. (tax)", &[TAX]),
    place("Thakkar et al.", &[TAX]),
    place("Lu et al.", &[TAX]),
    place("Chen et al.", &[TAX]),
];

/// One line each: name, how to run it, TRL's name, places, formula. `slugs` are the methods that the program has; one
/// that it lacks is not built.
pub fn table(slugs: &[&str]) -> String {
    let run = |variant: &Variant| match variant.run {
        Method(slug) if slugs.contains(&slug) => format!("polo train {slug}"),
        Loss(name) => format!("method.loss = \"{name}\""),
        Setting(run) | Rounds(run) => run.to_owned(),
        Method(_) | NotBuilt => "not built".to_owned(),
    };
    let titles = ["method", "how to run it", "TRL 1.16", "changes", "loss of an example"].map(str::to_owned);
    let mut rows = vec![titles];
    rows.extend(VARIANTS.iter().map(|variant| {
        let Variant { name, places, trl, formula, .. } = variant;
        [name.to_string(), run(variant), trl.to_string(), places.join(", "), formula.to_string()]
    }));
    let widths: Vec<_> =
        (0..4).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::from(
        "Methods of \"A Survey of Direct Preference Optimization\" by what they change: 1 data strategy, 2 learning \
         framework,\n3 constraint mechanism, 4 model property. Settings are those of `polo train dpo-survey`. L, m: \
         log-prob of an answer,\nsum and mean over its n tokens; rho: L less the reference's; D = rho_w - rho_l; \
         S = log sigmoid; s: scores.\ncDPO, RSO's hinge, InfoNCA, DiscoPOP, RPO, WPO, AlphaPO, TPO, SLiC-HF and PRO are not \
         in its figure and stand where they fit.\n\n",
    );
    for row in &rows {
        let line: String = (0..4).map(|column| format!("{:1$}  ", row[column], widths[column])).collect();
        text += format!("{line}{}", row[4]).trim_end();
        text.push('\n');
    }
    text
}
