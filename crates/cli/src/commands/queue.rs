//! `mayfly queue` and `mayfly topic`: messages.

use crate::cli::Common;
use crate::error::CliError;
use crate::output::Output;
use crate::queue_client::{Fields, NO_MESSAGE, QueueClient, list};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;

/// Port of the queues when nothing else is said.
const PORT: u16 = 8702;
/// Longest message that is read from a file or standard input: the most that a queue takes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Where the queues are.
#[derive(Debug, Args)]
pub struct Where {
    /// Where the queues are [default: the host of --endpoint, port 8702]
    #[arg(long, global = true, value_name = "URL")]
    pub queues_endpoint: Option<String>,
}

/// Message queues.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(flatten)]
    pub place: Where,
    /// What to do.
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// Topics.
#[derive(Debug, Args)]
pub struct TopicArgs {
    #[command(flatten)]
    pub place: Where,
    /// What to do.
    #[command(subcommand)]
    pub command: TopicCommand,
}

/// A message.
#[derive(Debug, Args)]
pub struct Body {
    /// The message
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub text: Option<String>,
    /// A file with the message; - is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl Body {
    fn read(&self) -> Result<String, CliError> {
        if let Some(text) = &self.text {
            return Ok(text.clone());
        }
        let Some(path) = &self.file else { return Err(CliError::local("there is no message")) };
        let cannot = |e: std::io::Error| {
            CliError::local(format!("cannot read {}: {e}", path.display())).hint("messages are text, in UTF-8")
        };
        let mut text = String::new();
        let most = MESSAGE_BYTES_MAX + 1;
        if path.as_os_str() == "-" {
            std::io::stdin().lock().take(most).read_to_string(&mut text).map_err(cannot)?;
        } else {
            std::fs::File::open(path).and_then(|f| f.take(most).read_to_string(&mut text)).map_err(cannot)?;
        }
        if text.len() as u64 > MESSAGE_BYTES_MAX {
            return Err(CliError::local("the message is longer than 1 MB")
                .hint("put it into a bucket (`mayfly objects put`), and send where it is"));
        }
        Ok(text)
    }
}

/// What can be done with queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Make a queue
    Create {
        /// Its name
        name: String,
        /// Seconds for which a received message is hidden [default: 30]
        #[arg(long, value_name = "SECONDS")]
        visibility: Option<u64>,
        /// Seconds for which messages are kept [default: 345600, 4 days]
        #[arg(long, value_name = "SECONDS")]
        retention: Option<u64>,
        /// Seconds for which receives wait when they say nothing else [default: 0]
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        /// Seconds for which deleted messages can be brought back [default: 0]
        #[arg(long, value_name = "SECONDS")]
        rewind: Option<u64>,
        /// The queue that gets what was received too often
        #[arg(long, value_name = "QUEUE", requires = "receives")]
        dead_letter: Option<String>,
        /// How often that is
        #[arg(long, value_name = "N", requires = "dead_letter")]
        receives: Option<u64>,
    },
    /// List queues
    Ls,
    /// Show a queue's settings, and how many messages it has
    Show {
        /// The queue
        name: String,
    },
    /// Send a message
    Send {
        /// The queue
        name: String,
        #[command(flatten)]
        body: Body,
        /// Seconds until it can be received
        #[arg(long, value_name = "SECONDS")]
        delay: Option<u64>,
    },
    /// Receive messages; they are hidden for a while and come again, unless they are deleted
    Receive {
        /// The queue
        name: String,
        /// Most messages
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
        max: u64,
        /// Seconds to wait for a message [default: the queue's]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=30))]
        wait: Option<u64>,
        /// Delete them once they are printed
        #[arg(long)]
        delete: bool,
    },
    /// Delete received messages by their handles
    Delete {
        /// The queue
        name: String,
        /// As `receive` showed them
        #[arg(required = true)]
        handles: Vec<String>,
    },
    /// Delete all messages of a queue
    Purge {
        /// The queue
        name: String,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// Delete a queue with its messages
    Rm {
        /// The queue
        name: String,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Make a topic
    Create {
        /// Its name
        name: String,
        /// Subscriptions choose by routing keys, not by tags
        #[arg(long)]
        routing: bool,
    },
    /// List topics
    Ls,
    /// Publish a message
    Publish {
        /// The topic
        name: String,
        #[command(flatten)]
        body: Body,
        /// A tag; may be repeated
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// The routing key
        #[arg(long, value_name = "KEY", conflicts_with = "tag")]
        routing_key: Option<String>,
    },
    /// Let a queue or an address get a topic's messages (for functions: `mayfly trigger topic`)
    Subscribe {
        /// The topic
        topic: String,
        /// A name for the subscription
        name: String,
        /// The queue that gets them
        #[arg(long, value_name = "QUEUE", required_unless_present = "url", conflicts_with = "url")]
        queue: Option<String>,
        /// The address that they are pushed to: http://HOST/PATH
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Only messages with this tag; may be repeated
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// Only messages whose routing key fits; may be repeated
        #[arg(long, value_name = "KEY", conflicts_with = "tag")]
        binding_key: Vec<String>,
    },
    /// List the subscriptions of a topic
    Subscriptions {
        /// The topic
        topic: String,
    },
    /// End a subscription
    Unsubscribe {
        /// The topic
        topic: String,
        /// The subscription
        name: String,
    },
    /// Delete a topic with its subscriptions
    Rm {
        /// The topic
        name: String,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

struct Queues {
    client: QueueClient,
    out: Output,
}

fn open(place: &Where, common: &Common, out: Output) -> Result<Queues, CliError> {
    let (endpoint, credentials) =
        super::beside(common, place.queues_endpoint.as_deref(), "MAYFLY_QUEUES_ENDPOINT", PORT)?;
    Ok(Queues { client: QueueClient::new(endpoint, credentials), out })
}

/// Runs a command of queues.
///
/// # Errors
/// Whatever went wrong.
pub fn run(args: QueueArgs, common: &Common, out: Output) -> Result<(), CliError> {
    open(&args.place, common, out)?.queue(args.command)
}

/// Runs a command of topics.
///
/// # Errors
/// Whatever went wrong.
pub fn run_topic(args: TopicArgs, common: &Common, out: Output) -> Result<(), CliError> {
    open(&args.place, common, out)?.topic(args.command)
}

fn field(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

impl Queues {
    /// Calls an action of which only the success is told.
    fn act(&self, action: &str, fields: &Fields, done: &str) -> Result<Value, CliError> {
        let answer = self.client.call(action, fields)?;
        if self.out.is_json() {
            self.out.json(&answer.to_string());
        } else {
            self.out.note(done);
        }
        Ok(answer)
    }

    fn sure(&self, yes: bool, question: &str) -> Result<(), CliError> {
        if yes || super::confirm(question, self.out)? { Ok(()) } else { Err(CliError::local("nothing was deleted")) }
    }

    /// Prints a list: names, one a line.
    fn names(&self, items: &[Value], name: &str, none: &str) {
        if self.out.is_json() {
            self.out.json(&json!(items).to_string());
        } else if items.is_empty() {
            self.out.note(none);
        } else {
            items.iter().for_each(|item| self.out.line(text(item, name)));
        }
    }

    fn queue(&self, command: QueueCommand) -> Result<(), CliError> {
        match command {
            QueueCommand::Create { name, visibility, retention, wait, rewind, dead_letter, receives } => {
                let mut fields = vec![field("queueName", &name)];
                for (key, value) in [
                    ("visibilityTimeout", visibility),
                    ("msgRetentionSeconds", retention),
                    ("pollingWaitSeconds", wait),
                    ("rewindSeconds", rewind),
                    ("maxReceiveCount", receives),
                ] {
                    fields.extend(value.map(|v| field(key, v)));
                }
                if let Some(queue) = dead_letter {
                    fields.extend([field("deadLetterQueueName", queue), field("policy", 0)]);
                }
                self.act("CreateQueue", &fields, &format!("created {name}")).map(|_| ())
            }
            QueueCommand::Ls => {
                let items = self.client.all("ListQueue", "queueList", &Vec::new())?;
                self.names(&items, "queueName", "no queues; `mayfly queue create NAME` makes one");
                Ok(())
            }
            QueueCommand::Show { name } => {
                let answer = self.client.call("GetQueueAttributes", &vec![field("queueName", name)])?;
                if self.out.is_json() {
                    self.out.json(&answer.to_string());
                    return Ok(());
                }
                let row = |label: &str, name: &str, unit: &str| {
                    vec![label.to_owned(), format!("{}{unit}", text(&answer, name))]
                };
                let mut rows = vec![
                    row("messages that can be received", "activeMsgNum", ""),
                    row("received and hidden", "inactiveMsgNum", ""),
                    row("delayed", "delayMsgNum", ""),
                    row("oldest", "minMsgTime", " s"),
                    row("visibility timeout", "visibilityTimeout", " s"),
                    row("wait of receives", "pollingWaitSeconds", " s"),
                    row("retention", "msgRetentionSeconds", " s"),
                    row("rewind", "rewindSeconds", " s"),
                ];
                if let Some(dead) = answer.get("deadLetterPolicy") {
                    rows.push(vec!["dead letters go to".into(), text(dead, "deadLetterQueueName")]);
                }
                self.out.table(&[], rows);
                Ok(())
            }
            QueueCommand::Send { name, body, delay } => {
                let mut fields = vec![field("queueName", &name), field("msgBody", body.read()?)];
                fields.extend(delay.map(|d| field("delaySeconds", d)));
                let answer = self.client.call("SendMessage", &fields)?;
                if self.out.is_json() {
                    self.out.json(&answer.to_string())
                } else {
                    self.out.line(text(&answer, "msgId"))
                }
                Ok(())
            }
            QueueCommand::Receive { name, max, wait, delete } => self.receive(&name, max, wait, delete),
            QueueCommand::Delete { name, handles } => {
                for some in handles.chunks(16) {
                    let mut fields = list("receiptHandle", some);
                    fields.push(field("queueName", &name));
                    self.client.call("BatchDeleteMessage", &fields)?;
                }
                self.deleted(handles.len());
                Ok(())
            }
            QueueCommand::Purge { name, yes } => {
                self.sure(yes, &format!("Delete all messages of {name}?"))?;
                self.act("ClearQueue", &vec![field("queueName", &name)], &format!("cleared {name}")).map(|_| ())
            }
            QueueCommand::Rm { name, yes } => {
                self.sure(yes, &format!("Delete the queue {name} with its messages?"))?;
                self.act("DeleteQueue", &vec![field("queueName", &name)], &format!("deleted {name}")).map(|_| ())
            }
        }
    }

    fn deleted(&self, count: usize) {
        match self.out.is_json() {
            true => self.out.json(&json!({ "Deleted": count }).to_string()),
            false => self.out.note(format!("deleted {count}")),
        }
    }

    fn receive(&self, name: &str, max: u64, wait: Option<u64>, delete: bool) -> Result<(), CliError> {
        let mut fields = vec![field("queueName", name), field("numOfMsg", max)];
        fields.extend(wait.map(|w| field("pollingWaitSeconds", w)));
        let messages = match self.client.call("BatchReceiveMessage", &fields) {
            Ok(answer) => answer.get("msgInfoList").and_then(Value::as_array).cloned().unwrap_or_default(),
            Err(error) if error.is_api(NO_MESSAGE) => Vec::new(),
            Err(error) => return Err(error),
        };
        if self.out.is_json() {
            self.out.json(&json!(messages).to_string());
        } else {
            for message in &messages {
                // What goes on is on standard error, so that bodies can be piped.
                if !delete {
                    self.out.note(format!(
                        "message {}, handle {}",
                        text(message, "msgId"),
                        text(message, "receiptHandle")
                    ));
                }
                self.out.line(text(message, "msgBody"));
            }
            if messages.is_empty() {
                self.out.note("no message");
            }
        }
        if delete && !messages.is_empty() {
            let handles: Vec<String> = messages.iter().map(|m| text(m, "receiptHandle")).collect();
            let mut fields = list("receiptHandle", &handles);
            fields.push(field("queueName", name));
            self.client.call("BatchDeleteMessage", &fields)?;
        }
        Ok(())
    }

    fn topic(&self, command: TopicCommand) -> Result<(), CliError> {
        match command {
            TopicCommand::Create { name, routing } => {
                let fields = vec![field("topicName", &name), field("filterType", if routing { 2 } else { 1 })];
                self.act("CreateTopic", &fields, &format!("created {name}")).map(|_| ())
            }
            TopicCommand::Ls => {
                let items = self.client.all("ListTopic", "topicList", &Vec::new())?;
                self.names(&items, "topicName", "no topics; `mayfly topic create NAME` makes one");
                Ok(())
            }
            TopicCommand::Publish { name, body, tag, routing_key } => {
                let mut fields = vec![field("topicName", &name), field("msgBody", body.read()?)];
                fields.extend(list("msgTag", &tag));
                fields.extend(routing_key.map(|k| field("routingKey", k)));
                let answer = self.client.call("PublishMessage", &fields)?;
                if self.out.is_json() {
                    self.out.json(&answer.to_string())
                } else {
                    self.out.line(text(&answer, "msgId"))
                }
                Ok(())
            }
            TopicCommand::Subscribe { topic, name, queue, url, tag, binding_key } => {
                let (protocol, endpoint) = match (queue, url) {
                    (Some(queue), _) => ("queue", queue),
                    (None, url) => ("http", url.unwrap_or_default()),
                };
                let mut fields = vec![
                    field("topicName", &topic),
                    field("subscriptionName", &name),
                    field("protocol", protocol),
                    field("endpoint", &endpoint),
                    field("notifyContentFormat", "SIMPLIFIED"),
                ];
                fields.extend(list("filterTag", &tag));
                fields.extend(list("bindingKey", &binding_key));
                self.act("Subscribe", &fields, &format!("{endpoint} gets the messages of {topic}")).map(|_| ())
            }
            TopicCommand::Subscriptions { topic } => {
                let fields = vec![field("topicName", topic)];
                let items = self.client.all("ListSubscriptionByTopic", "subscriptionList", &fields)?;
                if self.out.is_json() {
                    self.out.json(&json!(items).to_string());
                } else if items.is_empty() {
                    self.out.note("no subscriptions; `mayfly topic subscribe` makes one");
                } else {
                    let row = |i: &Value| vec![text(i, "subscriptionName"), text(i, "protocol"), text(i, "endpoint")];
                    self.out.table(&["SUBSCRIPTION", "BY", "TO"], items.iter().map(row).collect());
                }
                Ok(())
            }
            TopicCommand::Unsubscribe { topic, name } => {
                let fields = vec![field("topicName", topic), field("subscriptionName", &name)];
                self.act("Unsubscribe", &fields, &format!("ended {name}")).map(|_| ())
            }
            TopicCommand::Rm { name, yes } => {
                self.sure(yes, &format!("Delete the topic {name} with its subscriptions?"))?;
                self.act("DeleteTopic", &vec![field("topicName", &name)], &format!("deleted {name}")).map(|_| ())
            }
        }
    }
}
