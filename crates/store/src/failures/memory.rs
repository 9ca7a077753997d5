//! Failures in memory, for tests. Copies share their content.

use super::{
    ENDED_JOBS_MAX, Ending, Failure, FailureLimits, FailureLog, FailurePage, FailureQuery, FailureUsage, JobStage,
    Message, MessageKind, NewJob, Replay, ReplayJob, ReplayState, replay_id,
};
use crate::StoreError;
use async_trait::async_trait;
use mayfly_model::RequestId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Failures, replay jobs and messages in memory.
#[derive(Clone, Debug)]
pub struct MemoryFailures {
    limits: FailureLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    failures: BTreeMap<u64, Failure>,
    last_seq: u64,
    replays: Vec<Replay>,
    /// With the place reached and the last place.
    jobs: Vec<(ReplayJob, u64, u64)>,
    messages: BTreeMap<(RequestId, MessageKind), Message>,
    evicted: u64,
    refuses: bool,
}

impl MemoryFailures {
    /// Empty.
    pub fn new(limits: FailureLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Plays a full disk, or not any more.
    pub fn refuse(&self, on: bool) {
        self.state.lock().refuses = on;
    }
}

impl State {
    fn matches(&self, failure: &Failure, query: &FailureQuery) -> bool {
        let head = &failure.head;
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let under_way = || {
            let pending = [ReplayState::Planned, ReplayState::Accepted];
            self.replays.iter().any(|r| r.origin == head.id && pending.contains(&r.state))
        };
        (query.ids.is_empty() || query.ids.contains(&head.id))
            && same(&query.namespace, &head.namespace)
            && same(&query.function, &head.function)
            && same(&query.version, &head.version)
            && same(&query.source, &head.source)
            && query.text.as_ref().is_none_or(|t| head.error.to_ascii_lowercase().contains(&t.to_ascii_lowercase()))
            && query.status.is_none_or(|s| s == head.status)
            && query.from_ms.is_none_or(|ms| head.failed_ms >= ms)
            && query.to_ms.is_none_or(|ms| head.failed_ms <= ms)
            && query.resolved.is_none_or(|r| r == head.resolved_by.is_some())
            && !(query.origins_only && head.origin.is_some())
            && !(query.idle_only && under_way())
    }

    fn matching(&self, query: &FailureQuery) -> Vec<&Failure> {
        self.failures.values().filter(|f| self.matches(f, query)).collect()
    }

    fn by_id(&mut self, id: RequestId) -> Option<&mut Failure> {
        self.failures.values_mut().find(|f| f.head.id == id)
    }

    fn end_replay(&mut self, end: &super::ReplayEnd) {
        let Some(replay) = self.replays.iter_mut().find(|r| r.id == end.id) else { return };
        let before = replay.state;
        replay.state = if end.ok { ReplayState::Succeeded } else { ReplayState::Failed };
        (replay.status, replay.ended_ms) = (end.status, end.ended_ms);
        let (job, mut origin) = (replay.job, Some(replay.origin));
        if let Some((job, ..)) = self.jobs.iter_mut().find(|(j, ..)| j.id == job)
            && !before.is_over()
        {
            job.sent += u64::from(before == ReplayState::Cancelled);
            job.succeeded += u64::from(end.ok);
            job.failed += u64::from(!end.ok);
        }
        while let Some(failure) = origin.filter(|_| end.ok).and_then(|id| self.by_id(id)) {
            failure.head.resolved_by = Some(end.id);
            origin = failure.head.origin;
        }
    }
}

#[async_trait]
impl FailureLog for MemoryFailures {
    async fn conclude(&self, ending: Ending) -> Result<(), StoreError> {
        ending.validate()?;
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.refuses {
            return Err(StoreError::Full("the disk is full"));
        }
        let waiting =
            state.messages.values().filter(|m| !ending.messages.iter().any(|n| (n.id, n.kind) == (m.id, m.kind)));
        let (count, bytes) = waiting.fold((0, 0), |(n, b), m| (n + 1, b + m.body.len() as u64));
        let new: u64 = ending.messages.iter().map(|m| m.body.len() as u64).sum();
        if !ending.messages.is_empty()
            && (count + ending.messages.len() as u64 > self.limits.messages_max
                || bytes + new > self.limits.message_bytes_max)
        {
            return Err(StoreError::Full("too many messages wait to be delivered"));
        }
        if let Some(mut failure) = ending.failure {
            state.failures.retain(|_, f| f.head.id != failure.head.id);
            state.last_seq += 1;
            failure.head.seq = state.last_seq;
            state.failures.insert(state.last_seq, failure);
            while state.failures.len() > 1
                && state.failures.values().map(Failure::bytes).sum::<u64>() > self.limits.bytes_max
            {
                state.failures.pop_first();
                state.evicted += 1;
            }
        }
        if let Some(end) = &ending.replay {
            state.end_replay(end);
        }
        state.messages.extend(ending.messages.into_iter().map(|m| ((m.id, m.kind), m)));
        Ok(())
    }

    async fn get(&self, id: RequestId) -> Result<Option<Failure>, StoreError> {
        Ok(self.state.lock().by_id(id).cloned())
    }

    async fn list(
        &self,
        query: &FailureQuery,
        after: Option<u64>,
        ascending: bool,
        limit: usize,
    ) -> Result<FailurePage, StoreError> {
        let state = self.state.lock();
        let mut found: Vec<_> = state.matching(query).into_iter().map(|f| f.head.clone()).collect();
        let total = found.len() as u64;
        if !ascending {
            found.reverse();
        }
        found.retain(|h| after.is_none_or(|seq| if ascending { h.seq > seq } else { h.seq < seq }));
        found.truncate(limit);
        Ok(FailurePage { heads: found, total })
    }

    async fn delete(&self, query: &FailureQuery) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        let gone: Vec<u64> = state.matching(query).iter().map(|f| f.head.seq).collect();
        state.failures.retain(|seq, _| !gone.contains(seq));
        Ok(gone.len() as u64)
    }

    async fn prune(&self, now_ms: u64) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let before = state.failures.len();
        state.failures.retain(|_, f| f.expires_ms > now_ms);
        let over = state.jobs.iter().filter(|(j, ..)| j.is_over()).count();
        let mut surplus = over.saturating_sub(ENDED_JOBS_MAX);
        state.jobs.retain(|(j, ..)| {
            let goes = surplus > 0 && j.is_over();
            surplus -= usize::from(goes);
            !goes
        });
        let (failures, jobs) = (&state.failures, &state.jobs);
        state.replays.retain(|r| {
            matches!(r.state, ReplayState::Planned | ReplayState::Accepted)
                || failures.values().any(|f| f.head.id == r.origin)
                || jobs.iter().any(|(j, ..)| j.id == r.job)
        });
        Ok((before - state.failures.len()) as u64)
    }

    async fn usage(&self) -> Result<FailureUsage, StoreError> {
        let state = self.state.lock();
        Ok(FailureUsage {
            count: state.failures.len() as u64,
            bytes: state.failures.values().map(Failure::bytes).sum(),
            evicted: state.evicted,
            messages: state.messages.len() as u64,
        })
    }

    async fn replays_of(&self, origin: RequestId) -> Result<Vec<Replay>, StoreError> {
        let state = self.state.lock();
        let mut found: Vec<_> = state.replays.iter().filter(|r| r.origin == origin).cloned().collect();
        found.sort_by_key(|r| (r.planned_ms, r.id));
        found.truncate(1000);
        Ok(found)
    }

    async fn add_job(&self, job: NewJob) -> Result<ReplayJob, StoreError> {
        let mut state = self.state.lock();
        if let Some((found, ..)) = state.jobs.iter().find(|(j, ..)| job.token.is_some() && j.token == job.token) {
            return Ok(found.clone());
        }
        if state.jobs.iter().filter(|(j, ..)| j.stage == JobStage::Sending).count() as u64 >= self.limits.jobs_max {
            return Err(StoreError::Full("too many replay jobs are under way"));
        }
        let total = state.matching(&job.query).len() as u64;
        let NewJob { id, token, spec, query, created_ms } = job;
        let stage = JobStage::Sending;
        let job = ReplayJob { id, token, spec, query, stage, created_ms, total, sent: 0, succeeded: 0, failed: 0 };
        let last = state.failures.keys().last().copied().unwrap_or(0);
        state.jobs.push((job.clone(), 0, last));
        Ok(job)
    }

    async fn job(&self, id: RequestId) -> Result<Option<ReplayJob>, StoreError> {
        Ok(self.state.lock().jobs.iter().find(|(j, ..)| j.id == id).map(|(j, ..)| j.clone()))
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, StoreError> {
        Ok(self.state.lock().jobs.iter().rev().map(|(j, ..)| j.clone()).collect())
    }

    async fn plan(&self, job: RequestId, now_ms: u64, limit: usize) -> Result<Vec<Replay>, StoreError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(at) = state.jobs.iter().position(|(j, ..)| j.id == job && j.stage == JobStage::Sending) else {
            return Ok(Vec::new());
        };
        let (known, place, last) = state.jobs[at].clone();
        let found: Vec<_> = state
            .matching(&known.query)
            .into_iter()
            .map(|f| (f.head.seq, f.head.id))
            .filter(|(seq, _)| *seq > place && *seq <= last)
            .take(limit)
            .collect();
        let mut planned = Vec::new();
        for (seq, origin) in found {
            state.jobs[at].1 = seq;
            state.jobs[at].0.sent += 1;
            let id = replay_id(origin, job);
            planned.push(Replay {
                id,
                origin,
                job,
                state: ReplayState::Planned,
                status: 0,
                planned_ms: now_ms,
                ended_ms: 0,
            });
        }
        state.replays.extend(planned.iter().cloned());
        Ok(planned)
    }

    async fn planned(&self, job: RequestId) -> Result<Vec<Replay>, StoreError> {
        let state = self.state.lock();
        Ok(state.replays.iter().filter(|r| r.job == job && r.state == ReplayState::Planned).cloned().collect())
    }

    async fn accepted(&self, ids: &[RequestId]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for replay in state.replays.iter_mut().filter(|r| ids.contains(&r.id) && r.state == ReplayState::Planned) {
            replay.state = ReplayState::Accepted;
        }
        Ok(())
    }

    async fn set_stage(&self, job: RequestId, stage: JobStage) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if let Some((job, ..)) = state.jobs.iter_mut().find(|(j, ..)| j.id == job && j.stage == JobStage::Sending) {
            job.stage = stage;
        }
        Ok(())
    }

    async fn drop_planned(&self, job: RequestId) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut dropped = 0;
        for replay in state.replays.iter_mut().filter(|r| r.job == job && r.state == ReplayState::Planned) {
            replay.state = ReplayState::Cancelled;
            dropped += 1;
        }
        if let Some((job, ..)) = state.jobs.iter_mut().find(|(j, ..)| j.id == job) {
            job.sent -= dropped;
        }
        Ok(())
    }

    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Message>, StoreError> {
        let state = self.state.lock();
        let mut found: Vec<_> = state.messages.values().filter(|m| m.due_ms <= now_ms).cloned().collect();
        found.sort_by_key(|m| m.due_ms);
        found.truncate(limit);
        Ok(found)
    }

    async fn postpone(&self, id: RequestId, kind: MessageKind, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        if let Some(message) = self.state.lock().messages.get_mut(&(id, kind)) {
            (message.due_ms, message.attempt) = (due_ms, attempt);
        }
        Ok(())
    }

    async fn settle(&self, id: RequestId, kind: MessageKind, note: Option<String>) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.messages.remove(&(id, kind));
        if let (Some(note), Some(failure)) = (note, state.by_id(id)) {
            let kept = &mut failure.head.note;
            if !kept.is_empty() {
                kept.push('\n');
            }
            kept.push_str(&note);
        }
        Ok(())
    }
}
