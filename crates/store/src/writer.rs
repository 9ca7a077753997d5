//! The task behind each SQLite-backed store: it owns the connection, and commits writes that wait together together, so
//! that many callers share one sync of the disk.

use crate::StoreError;
use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

/// Where the answer to a job goes.
pub type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// What a store does with the connection.
#[async_trait]
pub trait Work: Send + 'static {
    /// A write, with the way back to its caller.
    type Write: Send + 'static;
    /// A question, with the way back to its caller.
    type Read: Send + 'static;
    /// What the database holds, for messages.
    const NAME: &'static str;
    /// Jobs that may wait; further callers wait before they are admitted.
    const QUEUE_JOBS_MAX: usize;
    /// Most writes in one group: bounds how long the first of them waits.
    const GROUP_WRITES_MAX: usize;

    /// Commits a group of writes, answers each, and leaves `group` empty.
    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Self::Write>);

    /// Answers a question.
    async fn read(&mut self, conn: &mut SqliteConnection, read: Self::Read);
}

/// A job for the task.
#[derive(Debug)]
pub enum Job<W, R> {
    /// To be committed.
    Write(W),
    /// To be answered.
    Read(R),
    /// The last one.
    Close(Done<()>),
}

/// The way to the task. The task ends, and closes its connection, once this is dropped.
#[derive(Debug)]
pub struct Jobs<W, R>(mpsc::Sender<Job<W, R>>);

impl<W: Send + 'static, R: Send + 'static> Jobs<W, R> {
    /// Starts the task on the current tokio runtime.
    pub fn start<T: Work<Write = W, Read = R>>(conn: SqliteConnection, work: T) -> Self {
        let (jobs, queue) = mpsc::channel(T::QUEUE_JOBS_MAX);
        tokio::spawn(serve(conn, queue, work));
        Self(jobs)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`StoreError::Closed`], and what the answer says.
    pub async fn ask<T>(&self, job: impl FnOnce(Done<T>) -> Job<W, R>) -> Result<T, StoreError> {
        self.place().await?.ask(job).await
    }

    /// Waits for a place in the queue.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn place(&self) -> Result<Place<'_, W, R>, StoreError> {
        self.0.reserve().await.map(Place).map_err(|_| StoreError::Closed)
    }

    /// Finishes what was accepted and closes the file.
    ///
    /// # Errors
    /// As [`Jobs::ask`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(Job::Close).await
    }
}

/// A place in the queue.
#[derive(Debug)]
pub struct Place<'a, W, R>(mpsc::Permit<'a, Job<W, R>>);

impl<W, R> Place<'_, W, R> {
    /// As [`Jobs::ask`]. The job is in the queue before this first waits.
    ///
    /// # Errors
    /// As [`Jobs::ask`].
    pub async fn ask<T>(self, job: impl FnOnce(Done<T>) -> Job<W, R>) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.0.send(job(done));
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

async fn serve<T: Work>(mut conn: SqliteConnection, mut queue: mpsc::Receiver<Job<T::Write, T::Read>>, mut work: T) {
    let mut group = Vec::new();
    let mut next = queue.recv().await;
    while let Some(job) = next.take() {
        match job {
            Job::Write(write) => {
                group.push(write);
                // Only writes that wait already are taken along: nobody is delayed for company.
                next = queue.try_recv().ok();
                if group.len() >= T::GROUP_WRITES_MAX || !matches!(next, Some(Job::Write(_))) {
                    work.commit(&mut conn, &mut group).await;
                }
            }
            Job::Read(read) => work.read(&mut conn, read).await,
            Job::Close(done) => {
                let _ = done.send(conn.close().await.map_err(StoreError::from));
                return;
            }
        }
        if next.is_none() {
            next = queue.recv().await;
        }
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "closing the database of {}", T::NAME);
    }
}
