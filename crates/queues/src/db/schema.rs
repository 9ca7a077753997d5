//! The tables.

use mayfly_store::sqlite::Migration;

/// `visible_ms` of a message that was deleted and can be brought back.
pub(crate) const NEVER: i64 = i64::MAX;

pub(crate) const MIGRATIONS: &[Migration] = &[FIRST, LINEAGE];

/// Which invocation published a message: JSON, empty when none did.
const LINEAGE: Migration = Migration {
    name: "what published a message",
    statements: &["ALTER TABLE published ADD COLUMN lineage TEXT NOT NULL DEFAULT ''"],
};

const FIRST: Migration = Migration {
    name: "queues, topics and their messages",
    statements: &[
        // Numbers of rows are never used twice (AUTOINCREMENT): clients and other tables hold them.
        "CREATE TABLE queues (slot INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, spec TEXT NOT NULL)",
        "CREATE UNIQUE INDEX queues_by_name ON queues (name COLLATE NOCASE)",
        // Slots whose messages are to go.
        "CREATE TABLE doomed (slot INTEGER PRIMARY KEY)",
        "CREATE TABLE topics (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, spec TEXT NOT NULL)",
        "CREATE UNIQUE INDEX topics_by_name ON topics (name COLLATE NOCASE)",
        "CREATE TABLE subscriptions (id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL)",
        "CREATE UNIQUE INDEX subscriptions_by_name ON subscriptions (topic, name COLLATE NOCASE)",
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, slot INTEGER NOT NULL, visible_ms INTEGER NOT NULL, \
         sent_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL, received INTEGER NOT NULL, \
         token INTEGER NOT NULL, deleted_ms INTEGER NOT NULL, doom_ms INTEGER NOT NULL, bytes INTEGER NOT NULL)",
        "CREATE INDEX messages_by_turn ON messages (slot, visible_ms, id, received)",
        "CREATE INDEX messages_by_end ON messages (expires_ms)",
        "CREATE INDEX messages_by_age ON messages (slot, sent_ms) WHERE deleted_ms = 0",
        "CREATE INDEX messages_by_doom ON messages (doom_ms) WHERE doom_ms > 0",
        // Apart from the rest, so that hiding a message does not rewrite it.
        "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE TABLE published (id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, topic_name TEXT NOT NULL, \
         sent_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, tags TEXT NOT NULL, routing_key TEXT NOT NULL, \
         refs INTEGER NOT NULL, bytes INTEGER NOT NULL, body TEXT NOT NULL)",
        "CREATE INDEX published_by_end ON published (expires_ms)",
        "CREATE TABLE deliveries (id INTEGER PRIMARY KEY AUTOINCREMENT, outlet TEXT NOT NULL, publication INTEGER NOT NULL, \
         due_ms INTEGER NOT NULL, attempt INTEGER NOT NULL)",
        "CREATE INDEX deliveries_by_turn ON deliveries (outlet, due_ms, id)",
        "CREATE INDEX deliveries_by_id ON deliveries (outlet, id)",
        "CREATE INDEX deliveries_by_publication ON deliveries (publication)",
    ],
};
