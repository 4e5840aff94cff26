//! What a broken network costs, every node in a namespace of its own (R7 to R12 of the plan).
//!
//! | figure | meaning |
//! |---|---|
//! | `killed`, `frozen`, `cut_off`, `deaf`, `mute` | from the harm to the master to the next acknowledged write |
//! | `all_killed` | from `kill -9` to all nodes, which are started again at once, to the next acknowledged write |
//! | `quorum_regained` | from the end of a time in which no node heard another to a write acknowledged through the former master |
//! | `lost_acks` | writes acknowledged before one of these two, or through a node that was frozen or cut off, that could not be read afterwards, in all rounds |
//! | `minority_acks` | writes begun after a freeze or cut that a master without a quorum acknowledged before its end, in all rounds |
//! | `healed` | from the end of a freeze or cut (of a master or a follower) to a write acknowledged through that node |
//! | `healed_epochs` | epochs that came of healing, in all rounds |
//! | `bridge`, `ring` | five nodes: two halves joined by one node; each hears its two neighbours only |
//! | `loss_N.rate_share` | writes per second while N of a hundred packets between nodes are lost, in percent of none lost |
//!
//! The clients work where the router is: no packet of theirs is dropped, and they may ask any node.
//!
//! # Invariants
//!
//! * Every cut is undone and every namespace removed, also after an error or Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::figure::{Figure, median_and_max};
use super::rig::Rig;
use crate::Client;
use crate::cli::{Code, Diagnostic, Exit, Output};
use crate::processes::{Network, interrupted};

/// Measures all of it, every harm `rounds` times; or says how this process shall end because it was interrupted.
pub(super) fn measure(rounds: u32, output: &Output) -> Result<Result<Vec<Figure>, Exit>, Diagnostic> {
    let mut figures = Vec::new();
    let parts: [(u8, Part); 2] = [(3, Part::Three), (5, Part::Five)];
    for (nodes, part) in parts {
        let network = Arc::new(Network::new(nodes)?);
        // All threads of this runtime are born inside, and so is everything that they start.
        let measured = network.inside(|| -> Result<Result<Vec<Figure>, Exit>, Diagnostic> {
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Diagnostic::new(Code::Internal, format!("cannot start a runtime: {error}")))?;
            runtime.block_on(async {
                tokio::select! {
                    figures = part.measure(&network, rounds, output) => figures.map(Ok),
                    exit = interrupted() => Ok(Err(exit)),
                }
            })
        });
        match measured?? {
            Ok(more) => figures.extend(more),
            Err(exit) => return Ok(Err(exit)),
        }
    }
    Ok(Ok(figures))
}

/// What needs a cluster of its own.
#[derive(Clone, Copy)]
enum Part {
    Three,
    Five,
}

impl Part {
    async fn measure(self, network: &Arc<Network>, rounds: u32, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
        let mut stage = Stage::start(network.clone(), self).await?;
        match self {
            Self::Three => {
                let mut totals = Totals::default();
                let mut figures = failovers(&mut stage, rounds, &mut totals, output).await?;
                figures.extend(outages(&mut stage, rounds, &mut totals, output).await?);
                figures.extend(totals.figures());
                figures.extend(losses(&mut stage, output).await?);
                Ok(figures)
            }
            Self::Five => partial_cuts(&mut stage, output).await,
        }
    }
}

/// A cluster on a network.
struct Stage {
    rig: Rig,
    network: Arc<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Killed,
    Frozen,
    CutOff,
    Deaf,
    Mute,
    /// Not the master but a follower is cut off.
    Follower,
}

/// What takes the quorum away.
#[derive(Clone, Copy)]
enum Outage {
    AllKilled,
    QuorumLost,
}

/// What came of one harm.
#[derive(Default)]
struct Outcome {
    /// To the next acknowledged write.
    gap: Duration,
    minority_acks: usize,
    /// From the end of the freeze or cut, if there was one.
    healed: Option<Duration>,
    healed_epochs: u64,
    lost_acks: usize,
}

/// What is counted over all rounds of all harms.
#[derive(Default)]
struct Totals {
    healed: Vec<Duration>,
    healed_epochs: u64,
    minority_acks: usize,
    lost_acks: usize,
}

impl Totals {
    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::from(median_and_max("failover.netns.healed", &self.healed));
        let counts = [
            ("healed_epochs", self.healed_epochs as f64),
            ("minority_acks", self.minority_acks as f64),
            ("lost_acks", self.lost_acks as f64),
        ];
        figures.extend(counts.map(|(name, count)| Figure::new(format!("failover.netns.{name}"), count, "")));
        figures
    }
}

async fn failovers(
    stage: &mut Stage,
    rounds: u32,
    totals: &mut Totals,
    output: &Output,
) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (name, harm) in HARMS {
        let mut gaps = Vec::new();
        for round in 1..=rounds {
            let outcome = stage.harm(harm).await?;
            let ms = |span: Duration| span.as_secs_f64() * 1000.0;
            let epochs = outcome.healed_epochs;
            let back = outcome.healed.map_or(String::new(), |span| {
                format!(", serves {:.0} ms after healing, {epochs} epochs burnt", ms(span))
            });
            output.note(format!("{name} {round}/{rounds}: {:.0} ms{back}", ms(outcome.gap)));
            gaps.push(outcome.gap);
            totals.healed.extend(outcome.healed);
            totals.minority_acks += outcome.minority_acks;
            totals.healed_epochs += outcome.healed_epochs;
            totals.lost_acks += outcome.lost_acks;
        }
        figures.extend(median_and_max(&format!("failover.netns.{name}"), &gaps));
    }
    Ok(figures)
}

/// Nobody can lead for a while: what counts is how soon somebody does, and that nothing is lost.
async fn outages(
    stage: &mut Stage,
    rounds: u32,
    totals: &mut Totals,
    output: &Output,
) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for (name, outage) in [("all_killed", Outage::AllKilled), ("quorum_regained", Outage::QuorumLost)] {
        let mut spans = Vec::new();
        for round in 1..=rounds {
            stage.rig.mend().await?;
            let keys: Vec<String> = (0..KEYS).map(|number| format!("{KEY}/{name}/{round}/{number}")).collect();
            for key in &keys {
                stage.rig.client.kv().put(key, "acknowledged").await?;
            }
            let span = match outage {
                Outage::AllKilled => stage.kill_all().await?,
                Outage::QuorumLost => stage.lose_quorum(totals).await?,
            };
            output.note(format!("{name} {round}/{rounds}: {:.0} ms", span.as_secs_f64() * 1000.0));
            spans.push(span);
            for key in &keys {
                totals.lost_acks += usize::from(stage.rig.client.kv().get(key).await?.is_none());
            }
        }
        figures.extend(median_and_max(&format!("failover.netns.{name}"), &spans));
    }
    Ok(figures)
}

/// A majority reaches the master all the time: nothing should be noticed.
async fn partial_cuts(stage: &mut Stage, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    for name in ["bridge", "ring"] {
        let (mut gap, mut changes) = (Duration::ZERO, 0);
        for round in 1..=PARTIAL_ROUNDS {
            stage.rig.mend().await?;
            let (master, before) = stage.reign().await?;
            let joint = (master + 1) % 5;
            let is_near = |place| place == master || place == (master + 2) % 5;
            let is_cut = match name {
                "bridge" => stage.network.allow(|a, b| a == joint || b == joint || is_near(a) == is_near(b)),
                _ => stage.network.allow(|a, b| (a + 1) % 5 == b || (b + 1) % 5 == a),
            };
            is_cut?;
            let acks = repeat(&stage.rig.client, 1, PARTIAL_LENGTH).await;
            let longest = acks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(PARTIAL_LENGTH);
            let (_, after) = stage.reign().await?;
            stage.network.heal()?;
            output
                .note(format!("{name} {round}/{PARTIAL_ROUNDS}: longest gap {:.0} ms", longest.as_secs_f64() * 1000.0));
            gap = gap.max(longest);
            changes = changes.max(after - before);
        }
        figures.push(Figure::new(format!("failover.netns.{name}.longest_gap"), gap.as_secs_f64() * 1000.0, "ms"));
        figures.push(Figure::new(format!("failover.netns.{name}.leader_changes"), changes as f64, ""));
    }
    Ok(figures)
}

async fn losses(stage: &mut Stage, output: &Output) -> Result<Vec<Figure>, Diagnostic> {
    let mut figures = Vec::new();
    let mut lossless = f64::NAN;
    for percent in [0, 5, 10, 20] {
        stage.rig.mend().await?;
        let (_, before) = stage.reign().await?;
        stage.network.lose(percent)?;
        let acks = repeat(&stage.rig.client, LOSS_WIDTH, LOSS_LENGTH).await;
        stage.network.lose(0)?;
        let rate = acks.len() as f64 / LOSS_LENGTH.as_secs_f64();
        let (_, after) = stage.reign().await?;
        output.note(format!("{percent} % lost: {rate:.0} writes a second, {} leader changes", after - before));
        if percent == 0 {
            lossless = rate;
            figures.push(Figure::new("failover.netns.loss_0.per_s", rate, "1/s"));
            continue;
        }
        let name = format!("failover.netns.loss_{percent}");
        figures.push(Figure::new(format!("{name}.rate_share"), 100.0 * rate / lossless, "%"));
        figures.push(Figure::new(format!("{name}.leader_changes"), (after - before) as f64, ""));
    }
    Ok(figures)
}

impl Stage {
    async fn start(network: Arc<Network>, part: Part) -> Result<Self, Diagnostic> {
        let nodes = if let Part::Three = part { 3 } else { 5 };
        Ok(Self { rig: Rig::on(network.clone(), nodes).await?, network })
    }

    async fn harm(&mut self, harm: Harm) -> Result<Outcome, Diagnostic> {
        self.rig.mend().await?;
        let (master, _) = self.reign().await?;
        let count = self.rig.own()?.len();
        let victim = if harm == Harm::Follower { (master + 1) % count } else { master };
        let lonely = Lonely::begin(self.rig.client_of(victim).await?).await?;
        let client = self.rig.client.clone();
        for _ in 0..3 {
            client.kv().put(KEY, "before").await?;
        }
        let begin = Instant::now();
        match harm {
            Harm::Killed => self.rig.own_mut()?.kill(victim),
            Harm::Frozen => self.rig.own_mut()?.pause(victim),
            Harm::CutOff | Harm::Follower => self.network.allow(|from, to| from != victim && to != victim)?,
            Harm::Deaf => self.network.allow(|_, to| to != victim)?,
            Harm::Mute => self.network.allow(|from, _| from != victim)?,
        }
        let cut = Instant::now();
        client.kv().put(KEY, "after").await?;
        let mut outcome = Outcome { gap: begin.elapsed(), ..Outcome::default() };
        if harm == Harm::Killed {
            lonely.end().await;
            return Ok(outcome);
        }
        tokio::time::sleep(HOLD).await;
        let (_, before) = self.reign().await?;
        let heal = Instant::now();
        match harm {
            Harm::Frozen => self.rig.own_mut()?.resume(victim),
            _ => self.network.heal()?,
        }
        outcome.healed = Some(lonely.first_ack_after(heal).await?);
        let acks = lonely.end().await;
        outcome.minority_acks = acks.iter().filter(|ack| ack.begin >= cut && ack.end <= heal).count();
        self.rig.mend().await?;
        let (_, after) = self.reign().await?;
        outcome.healed_epochs = after - before;
        let last = acks.last().map_or(0, |ack| ack.number);
        let found = client.kv().get(LONELY_KEY).await?;
        let found = found.and_then(|found| std::str::from_utf8(&found.value).ok()?.parse::<u64>().ok());
        outcome.lost_acks = usize::from(found < Some(last));
        Ok(outcome)
    }

    /// Kills all and starts them again: how long that is noticed.
    async fn kill_all(&mut self) -> Result<Duration, Diagnostic> {
        let client = self.rig.client.clone();
        let processes = self.rig.own_mut()?;
        let begin = Instant::now();
        processes.kill_all();
        for place in 0..processes.len() {
            processes.restart(place)?;
        }
        client.kv().put(KEY, "after").await?;
        Ok(begin.elapsed())
    }

    /// Cuts every node off from every other for a while: how long the end of that is noticed.
    async fn lose_quorum(&mut self, totals: &mut Totals) -> Result<Duration, Diagnostic> {
        let (master, _) = self.reign().await?;
        let lonely = Lonely::begin(self.rig.client_of(master).await?).await?;
        self.network.allow(|_, _| false)?;
        let cut = Instant::now();
        tokio::time::sleep(HOLD).await;
        let heal = Instant::now();
        self.network.heal()?;
        let span = lonely.first_ack_after(heal).await?;
        let acks = lonely.end().await;
        totals.minority_acks += acks.iter().filter(|ack| ack.begin >= cut && ack.end <= heal).count();
        Ok(span)
    }

    /// Who leads and since which epoch: of several who say so, the one in the highest.
    async fn reign(&self) -> Result<(usize, u64), Diagnostic> {
        let processes = self.rig.own()?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let mut found = None;
            for place in 0..processes.len() {
                let Some(status) = processes.get(place, "/v1/status").await else { continue };
                let epoch = status["epoch"].as_u64().unwrap_or_default();
                if status["role"] == "leader" && found.is_none_or(|(_, highest)| epoch > highest) {
                    found = Some((place, epoch));
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Diagnostic::new(Code::NoQuorum, format!("no master within {} s", PATIENCE.as_secs())))
    }
}

/// A client that knows one node only and writes all the time, a greater number each time.
struct Lonely {
    acks: tokio::sync::watch::Receiver<Vec<Ack>>,
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

/// A write that was acknowledged.
#[derive(Clone, Copy)]
struct Ack {
    number: u64,
    begin: Instant,
    end: Instant,
}

impl Lonely {
    /// Lets it begin, and waits until it has its session.
    async fn begin(client: Client) -> Result<Self, Diagnostic> {
        client.kv().put(LONELY_KEY, "0").await?;
        let client = client.timeout(TRY);
        let (sender, acks) = tokio::sync::watch::channel(Vec::new());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let writer = tokio::spawn(async move {
            for number in (1..).take_while(|_| !over.load(Ordering::Relaxed)) {
                let begin = Instant::now();
                match client.kv().put(LONELY_KEY, number.to_string()).await {
                    Ok(_) => sender.send_modify(|acks| acks.push(Ack { number, begin, end: Instant::now() })),
                    Err(error) => tracing::debug!(%error, "the lonely client"),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { acks, is_over, writer })
    }

    /// How long after `from` the first write was acknowledged that had begun after it.
    async fn first_ack_after(&self, from: Instant) -> Result<Duration, Diagnostic> {
        let mut acks = self.acks.clone();
        let is_there = |acks: &Vec<Ack>| acks.iter().any(|ack| ack.begin >= from);
        let late = || Diagnostic::new(Code::Timeout, format!("no write within {} s of healing", PATIENCE.as_secs()));
        let acks = tokio::time::timeout(PATIENCE, acks.wait_for(is_there)).await.map_err(|_| late())?;
        let first = acks.map_err(|_| late())?.iter().find(|ack| ack.begin >= from).map(|ack| ack.end - from);
        first.ok_or_else(late)
    }

    /// Ends it and returns what was acknowledged.
    async fn end(self) -> Vec<Ack> {
        self.is_over.store(true, Ordering::Relaxed);
        // It ends by itself; that it panicked would be our mistake and shows as missing acknowledgements.
        let _ = self.writer.await;
        self.acks.borrow().clone()
    }
}

/// Writes over and over, `width` at a time: when each was acknowledged, in order, the beginning first.
async fn repeat(client: &Client, width: usize, length: Duration) -> Vec<Instant> {
    let begin = Instant::now();
    let loops = (0..width).map(|place| async move {
        let (kv, key) = (client.kv(), format!("{KEY}/{place}"));
        let mut acks = Vec::new();
        while begin.elapsed() < length {
            // A write that fails is a gap, and shows as one.
            if kv.put(key.as_str(), VALUE).await.is_ok() {
                acks.push(Instant::now());
            }
        }
        acks
    });
    let mut acks: Vec<Instant> = futures_util::future::join_all(loops).await.into_iter().flatten().collect();
    acks.push(begin);
    acks.sort_unstable();
    acks
}

const HARMS: [(&str, Harm); 6] = [
    ("killed", Harm::Killed),
    ("frozen", Harm::Frozen),
    ("cut_off", Harm::CutOff),
    ("deaf", Harm::Deaf),
    ("mute", Harm::Mute),
    ("follower_cut_off", Harm::Follower),
];

/// How long a cut lasts after the others have gone on: gossip has taken notice by then.
const HOLD: Duration = Duration::from_secs(3);

/// Acknowledged before an outage, and read after it.
const KEYS: u32 = 30;

const PARTIAL_ROUNDS: u32 = 3;

const PARTIAL_LENGTH: Duration = Duration::from_secs(5);

const LOSS_LENGTH: Duration = Duration::from_secs(20);

const LOSS_WIDTH: usize = 16;

/// How long a lonely client waits for one answer.
const TRY: Duration = Duration::from_millis(250);

const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(5);

const KEY: &str = "bench/netns";

const LONELY_KEY: &str = "bench/lonely";

/// Like a small record.
const VALUE: &[u8] = &[b'v'; 256];
