//! The follower: a store that another process writes, or none. It maps the journal, takes no lock of the writer's, and writes
//! nothing but its own ports' files.
//!
//! What it may show is what the head says is durable. A writer that died has left its head as it was; the next one makes a
//! head of its own, to which the follower goes over when it looks again.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use super::place::check_file_system;
use super::source::{LOOK_INTERVAL, Source, Waiter};
use super::waiters::Subscription;
use super::{Commit, Opened, OpenedFrom, Visible, snapshots};
use crate::env::Env;
use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::journal::{FollowedHead, HeadFields, HeadState, Journal, Position, replay};
use crate::layout::{Layout, check_folders};
use crate::model::{Batch, Limits, State};
use crate::options::Options;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Event, Mutex, RwLock, lock};

/// A store that is followed.
pub(crate) struct Follower {
    /// For the thread that wakes those who await.
    this: Weak<Follower>,
    env: Arc<dyn Env>,
    layout: Layout,
    limits: Limits,
    notification_limit_bytes: u64,
    journal: Journal,
    followed: Mutex<Followed>,
    /// As far as anybody has asked; at nothing before.
    visible: RwLock<Visible>,
    /// The record of the snapshot that the state was read from; 0 if it was read from the journal alone.
    base: AtomicU64,
    is_closed: AtomicBool,
    changed: Event,
    watcher: OnceLock<()>,
}

/// The writer's life that is followed, and how far it has come.
struct Followed {
    identity: Identity,
    head: Arc<FollowedHead>,
    position: Position,
    /// When it was last looked at whether the head is still the store's.
    looked: Instant,
}

impl Follower {
    pub(crate) fn open(options: &Options, path: &Path) -> Result<Arc<Follower>> {
        let env = Arc::clone(&options.env);
        let layout = Layout::new(path);
        check_file_system(options, path)?;
        check_folders(&*env, &layout)?;
        let identity = match Identity::read(&*env, &layout.store()) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let path = path.to_owned();
                return Err(Error::StoreNotFound { path });
            }
            identity => identity?,
        };
        let head = Arc::new(FollowedHead::open(&*env, &layout.head())?);
        let (identity, journal) = open_journal(&env, &layout, identity)?;
        let position = match believable(&head, &identity) {
            Some(fields) => position_of(&fields),
            // It vouches for nothing; what the journal says of itself is durable all the same.
            None => journal.vouched_end()?,
        };
        journal.catch_up(&*env, &layout, &identity, position)?;
        let beginning = Position {
            sequence: 0,
            ..journal.position_after(0)?
        };
        let state = State::new();
        Ok(Arc::new_cyclic(|this| Follower {
            this: this.clone(),
            env,
            layout,
            limits: options.limits,
            notification_limit_bytes: options.notification_limit_bytes,
            journal,
            followed: Mutex::new(Followed {
                identity,
                head,
                position,
                looked: Instant::now(),
            }),
            visible: RwLock::new(Visible::new(state, beginning)),
            base: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            changed: Event::new(),
            watcher: OnceLock::new(),
        }))
    }

    /// Goes along with the head that is the store's now.
    fn go_along(&self, followed: &mut Followed) -> Result<()> {
        let said = followed.head.read();
        let is_another = said.is_some_and(|said| followed.head.is_of_another(&said));
        let mut fields = said.filter(|said| is_of_history(said, &followed.identity));
        let is_live = !is_another && fields.is_some_and(|fields| fields.state == HeadState::Live);
        // One of a dead writer looks live too, and stays so if the next one dies before it has said that it came.
        if !is_live || followed.looked.elapsed() >= LOOK_INTERVAL {
            followed.looked = Instant::now();
            if is_another || !followed.head.is_at(&self.layout.head())? {
                self.go_over(followed)?;
                fields = believable(&followed.head, &followed.identity);
            }
        }
        if let Some(fields) = fields
            && fields.state != HeadState::Replaced
            && fields.durable_sequence > followed.position.sequence
        {
            let position = position_of(&fields);
            self.journal
                .catch_up(&*self.env, &self.layout, &followed.identity, position)?;
            followed.position = position;
        }
        Ok(())
    }

    /// Another writer has come, and has made a head of its own; perhaps in another store that took this one's place.
    fn go_over(&self, followed: &mut Followed) -> Result<()> {
        let head = FollowedHead::open(&*self.env, &self.layout.head())?;
        let identity = Identity::read(&*self.env, &self.layout.store())?;
        // Files of the same names may be of another branch.
        if !identity.is_same_history(&followed.identity) {
            return Err(Error::StoreReplaced {
                path: self.layout.root().to_owned(),
                expected: followed.identity.epoch(),
                found: identity.epoch(),
            });
        }
        tracing::debug!(path = %self.layout.root().display(), "another writer has come");
        followed.head = Arc::new(head);
        followed.identity = identity;
        Ok(())
    }

    /// Brings the state up to what may be shown.
    fn replay(&self, to: Position) -> Result<()> {
        let mut visible = self.visible.write().map_err(|_| Error::LeaderPanicked)?;
        let visible = &mut *visible;
        let is_trimmed = visible.position.sequence + 1 < self.journal.first_sequence();
        if visible.position.sequence == 0 || is_trimmed {
            self.read_snapshot(visible, to)?;
        }
        replay(
            &self.journal,
            &mut visible.position,
            to.sequence,
            &mut |record, time| {
                visible.state.apply(record, time);
            },
        )
    }

    /// Reads the state from the newest snapshot that the journal goes on from, if there is one.
    fn read_snapshot(&self, visible: &mut Visible, to: Position) -> Result<()> {
        let (env, layout) = (&*self.env, &self.layout);
        let identity = lock(&self.followed).identity.clone();
        for meta in snapshots::metas(env, layout, &identity)? {
            // One that was made since is ahead of what may be shown.
            if meta.sequence > to.sequence || meta.sequence + 1 < self.journal.first_sequence() {
                continue;
            }
            let position = self.journal.position_after(meta.sequence)?;
            if position.checksum == meta.frame_checksum
                && let Some(state) = snapshots::load(env, layout, &meta)
            {
                *visible = Visible::new(state, position);
                self.base.store(meta.sequence, Ordering::Release);
                return Ok(());
            }
        }
        match self.journal.first_sequence() {
            1 => Ok(()),
            first => Err(snapshots::no_base(layout, first - 1)),
        }
    }

    /// The head, and its number now: it is another one when something has changed.
    fn look_at_head(&self) -> (Arc<FollowedHead>, u32) {
        let head = Arc::clone(&lock(&self.followed).head);
        let ticket = head.ticket();
        (head, ticket)
    }

    fn wake_all(&self) {
        lock(&self.followed).head.wake();
        self.changed.notify();
    }

    /// Wakes those who await whenever the head changes. They cannot sleep on it themselves.
    fn watch(this: &Weak<Follower>) {
        loop {
            let Some(follower) = this.upgrade() else { return };
            if follower.is_closed.load(Ordering::Acquire) {
                return;
            }
            let (head, ticket) = follower.look_at_head();
            // Looked at in between: another head may have come.
            follower.changed.notify();
            drop(follower);
            head.wait(ticket, LOOK_INTERVAL);
        }
    }
}

/// Opens the journal. Where it was trimmed meanwhile, the store file says so before anything is gone.
fn open_journal(env: &Arc<dyn Env>, layout: &Layout, mut identity: Identity) -> Result<(Identity, Journal)> {
    loop {
        let error = match Journal::follow(env, layout, &identity) {
            Ok(journal) => return Ok((identity, journal)),
            Err(error) => error,
        };
        let now = Identity::read(&**env, &layout.store())?;
        if now == identity {
            return Err(error);
        }
        identity = now;
    }
}

/// What the head says, unless it is damaged, or from before a repair that began another epoch.
fn believable(head: &FollowedHead, identity: &Identity) -> Option<HeadFields> {
    head.read().filter(|said| is_of_history(said, identity))
}

fn is_of_history(said: &HeadFields, identity: &Identity) -> bool {
    identity.epoch_of(said.durable_sequence) == said.epoch
}

fn position_of(fields: &HeadFields) -> Position {
    Position {
        sequence: fields.durable_sequence,
        checksum: fields.frame_checksum,
        segment: fields.segment,
        offset: fields.offset,
    }
}

impl Source for Follower {
    fn env(&self) -> &dyn Env {
        &*self.env
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn journal(&self) -> &Journal {
        &self.journal
    }

    fn opened(&self) -> Opened {
        let shown = self.visible.read().map_or(0, |visible| visible.position.sequence);
        let base = self.base.load(Ordering::Acquire);
        let from = match base {
            0 => OpenedFrom::Journal,
            _ => OpenedFrom::Snapshot,
        };
        Opened {
            from,
            replayed: shown.saturating_sub(base),
            torn_tail: None,
        }
    }

    fn epoch(&self) -> Epoch {
        lock(&self.followed).identity.epoch()
    }

    fn end_of(&self, epoch: Epoch) -> u64 {
        lock(&self.followed).identity.end_of(epoch)
    }

    fn journal_limit_bytes(&self) -> u64 {
        let fields = lock(&self.followed).head.read();
        fields.map_or(u64::MAX, |fields| fields.limit_bytes)
    }

    fn epoch_of(&self, sequence: u64) -> Epoch {
        lock(&self.followed).identity.epoch_of(sequence)
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn notification_limit_bytes(&self) -> u64 {
        self.notification_limit_bytes
    }

    fn tree_sequence(&self) -> u64 {
        0
    }

    fn was_closed(&self) -> bool {
        let followed = lock(&self.followed);
        let fields = believable(&followed.head, &followed.identity);
        fields.is_some_and(|fields| fields.state == HeadState::Closed)
    }

    fn check_open(&self) -> Result<()> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    fn position(&self) -> Result<Position> {
        self.check_open()?;
        let mut followed = lock(&self.followed);
        self.go_along(&mut followed)?;
        Ok(followed.position)
    }

    fn look(&self, look: &mut dyn FnMut(&Visible)) -> Result<()> {
        let position = self.position()?;
        let behind = |visible: &Visible| visible.position.sequence < position.sequence;
        if behind(&*self.visible.read().map_err(|_| Error::LeaderPanicked)?) {
            self.replay(position)?;
        }
        look(&*self.visible.read().map_err(|_| Error::LeaderPanicked)?);
        Ok(())
    }

    fn look_through(&self, look: &mut dyn FnMut(&Visible)) -> Result<()> {
        self.look(look)
    }

    fn subscribe(&self, _: &str) -> Subscription {
        Subscription::to_all()
    }

    fn listen(&self, _: &Subscription) -> Waiter {
        let (head, ticket) = self.look_at_head();
        Waiter::Head(head, ticket)
    }

    fn event<'a>(&'a self, _: &'a Subscription) -> &'a Event {
        self.watcher.get_or_init(|| {
            let this = self.this.clone();
            let thread = std::thread::Builder::new().name("clusdb-follow".into());
            if let Err(error) = thread.spawn(move || Follower::watch(&this)) {
                tracing::error!(%error, "no thread to wake those who await");
            }
        });
        &self.changed
    }

    fn wake(&self, _: &Subscription) {
        self.wake_all();
    }

    fn commit(&self, _: Batch) -> Result<Commit> {
        Err(Error::ReadOnly {
            path: self.layout.root().to_owned(),
        })
    }

    fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::Release);
        self.wake_all();
        Ok(())
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({})", self.layout.root().display())
    }
}
