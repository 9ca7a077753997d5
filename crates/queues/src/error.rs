//! Why the queues refuse, with the numbers of CMQ and the codes of TDMQ.

use mayfly_model::ApiError;
use mayfly_store::StoreError;

/// What is wrong, as clients can tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A field is absent.
    Missing,
    /// A field has a value that is not allowed.
    Invalid,
    /// A list has too many members.
    BatchSize,
    /// There is no such action.
    UnknownAction,
    /// The name of a queue is not one.
    QueueName,
    /// The name of a topic or a subscription is not one.
    TopicName,
    /// A message without text.
    EmptyMessage,
    /// The delay of a message is out of range.
    Delay,
    /// No such queue.
    NoQueue,
    /// There is a queue of that name.
    QueueExists,
    /// As many queues as there may be.
    TooManyQueues,
    /// The queue serves others as their dead-letter queue.
    QueueInUse,
    /// The queue does not keep deleted messages.
    NoRewind,
    /// A message is larger than its queue or topic takes.
    MessageSize,
    /// A batch is larger than batches may be.
    BatchBytes,
    /// The queue, or the store, is full.
    Full,
    /// A handle that is not, or not any more, one of the queue's.
    Handle,
    /// Nothing to receive.
    NoMessage,
    /// Too many receives wait.
    Throttled,
    /// No such topic.
    NoTopic,
    /// There is a topic of that name.
    TopicExists,
    /// As many topics as there may be.
    TooManyTopics,
    /// The topic has subscriptions.
    TopicInUse,
    /// No such subscription.
    NoSubscription,
    /// There is a subscription of that name.
    SubscriptionExists,
    /// As many subscriptions as a topic may have.
    TooManySubscriptions,
    /// Nobody subscribes to the topic.
    NobodySubscribed,
    /// No filter lets the message through.
    NobodyMatches,
    /// Too many tags to filter by.
    TooManyTags,
    /// Too many binding keys.
    TooManyKeys,
    /// Neither `queue` nor `http`.
    Protocol,
    /// The endpoint does not suit the protocol.
    Endpoint,
    /// No such strategy.
    Strategy,
    /// No such format of notifications.
    Format,
    /// Messages in queues are always `SIMPLIFIED`.
    QueueFormat,
    /// The signature is wrong, or absent.
    Authentication,
    /// There is no such key.
    SecretId,
    /// The platform is at fault.
    Internal,
}

/// A refusal. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// A sentence for the client.
    pub message: String,
}

impl ErrorKind {
    /// With a sentence.
    pub fn says(self, message: impl Into<String>) -> QueueError {
        QueueError { kind: self, message: message.into() }
    }

    /// CMQ's code, the code of its module, and the words that clients know. Source: "Error codes" of CMQ's API documents.
    pub fn cmq(self) -> (u16, u16, &'static str) {
        match self {
            Self::Missing => (4000, 10390, "lacked of required parameter"),
            Self::Invalid => (4000, 10350, "parameter value or length is out of range"),
            Self::BatchSize => (4000, 10370, "parameter batch size is out of range"),
            Self::UnknownAction => (4000, 10280, "action is not existed"),
            Self::QueueName => (4000, 10020, "queue name format error"),
            Self::TopicName => (4000, 10590, "topic name or subscription name format error"),
            Self::EmptyMessage => (4000, 10120, "message body can't be empty"),
            Self::Delay => (4000, 10692, "delay seconds is out of range"),
            Self::NoQueue => (4440, 10100, "queue is not existed, or deleted"),
            Self::QueueExists => (4460, 10210, "queue is already existed,case insensitive"),
            Self::TooManyQueues => (4450, 10220, "number of queues has reached the limit"),
            Self::QueueInUse => (4000, 10110, "request parameters error"),
            Self::NoRewind => (6050, 10670, "your queue cannot be rewinded"),
            Self::MessageSize => (4400, 10230, "exceed maximum message size"),
            Self::BatchBytes => (4470, 10300, "total message size exceed 1MB"),
            Self::Full => (4410, 10240, "reach maximum retention number of message"),
            Self::Handle => (4430, 10260, "receipt handle is invalid"),
            Self::NoMessage => (7000, 10200, "no message"),
            Self::Throttled => (4420, 10250, "qps throttling"),
            Self::NoTopic => (4440, 10600, "topic is not existed, or deleted"),
            Self::TopicExists => (4460, 10210, "topic is already existed"),
            Self::TooManyTopics => (4450, 10610, "number of topics has reached the limit"),
            Self::TopicInUse => (
                4000,
                10540,
                "there exists subscriptions under this topic, please unsubscribe all of them before DeleteTopic",
            ),
            Self::NoSubscription => (4440, 10600, "subscription is not existed, or deleted"),
            Self::SubscriptionExists => (4490, 10470, "subscribtion is already existed"),
            Self::TooManySubscriptions => (4500, 10480, "number of subscription has reached the limit"),
            Self::NobodySubscribed => {
                (6030, 10650, "topic has no subscription, please create a subscription before publishing message")
            }
            Self::NobodyMatches => (6030, 10730, "no bindingKey or filterTag matches the routingKey or msgTag"),
            Self::TooManyTags => (4000, 10490, "number of filterTag exceed limit"),
            Self::TooManyKeys => (4000, 10680, "too many bindingKey"),
            Self::Protocol => (4000, 10510, "undefined protocol"),
            Self::Endpoint => (4000, 10500, "endpoint format error"),
            Self::Strategy => (4000, 10520, "undefined notify retry stragety"),
            Self::Format => (4000, 10530, "undefined notify content format"),
            Self::QueueFormat => (4000, 10640, "notifyContentFormat of protocol queue must be SIMPLIFIED"),
            Self::Authentication => (4100, 10030, "authentication failed"),
            Self::SecretId => (4100, 10270, "secret id is not existed"),
            Self::Internal => (6000, 10050, "server internal error"),
        }
    }

    /// TDMQ's code. Source: the error codes of the SDK's `tdmq` module.
    pub fn tdmq(self) -> &'static str {
        match self {
            Self::Missing => "MissingParameter",
            Self::UnknownAction => "InvalidAction",
            Self::NoQueue | Self::NoTopic | Self::NoSubscription => "ResourceNotFound",
            Self::QueueExists | Self::QueueInUse => "ResourceInUse.Queue",
            Self::TopicExists | Self::TopicInUse => "ResourceInUse.Topic",
            Self::SubscriptionExists => "ResourceInUse.Subscription",
            Self::TooManyQueues | Self::Full => "LimitExceeded",
            Self::TooManyTopics => "LimitExceeded.Topics",
            Self::TooManySubscriptions => "LimitExceeded.Subscriptions",
            Self::Throttled => "RequestLimitExceeded",
            Self::MessageSize | Self::BatchBytes => "FailedOperation.MaxMessageSizeError",
            Self::NobodySubscribed | Self::NobodyMatches => "FailedOperation.SendMsgFailed",
            Self::NoMessage => "ResourceNotFound.Msg",
            Self::NoRewind => "FailedOperation",
            Self::Authentication => "AuthFailure.SignatureFailure",
            Self::SecretId => "AuthFailure.SecretIdNotFound",
            Self::Internal => "InternalError.SystemError",
            _ => "InvalidParameterValue",
        }
    }
}

impl QueueError {
    /// An absent field.
    pub fn missing(name: &str) -> Self {
        ErrorKind::Missing.says(format!("`{name}` is required."))
    }

    /// A value out of range.
    pub fn range(name: &str, low: u64, high: u64) -> Self {
        ErrorKind::Invalid.says(format!("`{name}` has to be a number from {low} to {high}."))
    }
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Full(_) => ErrorKind::Internal
                .says("No room is left on the disk; nothing was changed. Receive and delete messages, or make room."),
            StoreError::Closed => ErrorKind::Internal.says("The platform is stopping. Try again shortly."),
            _ => {
                tracing::error!(%error, "the queues' database");
                ErrorKind::Internal.says("The queues' database failed. Try again; the platform's log says more.")
            }
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        ApiError::new(error.kind.tdmq(), error.message)
    }
}
