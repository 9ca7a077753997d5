//! The numbers that bound everything. Source, unless said otherwise: SCF's quota page (product 583, "Quota Limits").

/// Longest function name, in characters.
pub const FUNCTION_NAME_CHARS_MAX: usize = 60;
/// Shortest function name, in characters.
pub const FUNCTION_NAME_CHARS_MIN: usize = 2;
/// Longest namespace name, in characters.
pub const NAMESPACE_NAME_CHARS_MAX: usize = 30;
/// Longest alias name, in characters.
pub const ALIAS_NAME_CHARS_MAX: usize = 64;
/// Longest layer name, in characters.
pub const LAYER_NAME_CHARS_MAX: usize = 64;
/// Longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1000;
/// All environment variables of a function together (keys and values), in bytes.
pub const ENVIRONMENT_BYTES_MAX: usize = 4096;
/// Largest event of a synchronous invocation, in bytes.
pub const EVENT_SYNC_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Largest event of an asynchronous invocation, in bytes.
pub const EVENT_ASYNC_BYTES_MAX: usize = 128 * 1024;
/// Most retries of an asynchronous event after run errors, which is also the default. Source: "Quota Limits" (`RetryNumLimit`).
pub const EVENT_RETRIES_MAX: u32 = 2;
/// Shortest time that an asynchronous event may be kept, in seconds. Source: the same page (`MinMsgTTL`).
pub const EVENT_AGE_S_MIN: u32 = 60;
/// Longest such time, which is also the default, in seconds. Source: the same page (`MaxMsgTTL`).
pub const EVENT_AGE_S_MAX: u32 = 6 * 3600;
/// Largest return value, in bytes of JSON text.
pub const RESULT_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Largest zip package in a request (before base64), in bytes.
pub const PACKAGE_ZIP_BYTES_MAX: usize = 50 * 1024 * 1024;
/// Code and layers of one version together, unpacked, in bytes.
pub const PACKAGE_UNPACKED_BYTES_MAX: u64 = 500 * 1024 * 1024;
/// Most entries in one package. Ours: SCF states none; a zip of millions of empty files must not eat the disk's inodes.
pub const PACKAGE_ENTRIES_MAX: usize = 100_000;
/// Largest API request body: a 50 MB package in base64 within JSON, with room for the other fields.
pub const API_BODY_BYTES_MAX: usize = 72 * 1024 * 1024;
/// The part of a log that `LogType=Tail` returns, in bytes.
pub const LOG_TAIL_BYTES: usize = 4096;
/// What one invocation may print before the rest is cut, in bytes. Ours.
pub const LOG_INVOCATION_BYTES_MAX: usize = 1024 * 1024;
/// Longest `RoutingKey`, in bytes.
pub const ROUTING_KEY_BYTES_MAX: usize = 1024;
/// Memory sizes are 64 MB or a multiple of 128 MB up to this, in MB.
pub const MEMORY_MB_MAX: u32 = 3072;
/// Memory of a function when none is given, in MB.
pub const MEMORY_MB_DEFAULT: u32 = 128;
/// Longest run of one synchronous invocation, in seconds.
pub const TIMEOUT_S_MAX: u32 = 900;
/// Longest run of an invocation of an asynchronous-execution function (`AsyncRunEnable`), in seconds.
pub const TIMEOUT_ASYNC_S_MAX: u32 = 24 * 3600;
/// How far back asynchronous events are listed, in hours. Source: SCF's page on asynchronous execution.
pub const EVENT_STATUS_HOURS: u64 = 72;
/// How long code may go on after it was told that its event is terminated, in seconds. Ours.
pub const ABORT_GRACE_S: u64 = 10;
/// Run time of an invocation when none is given, in seconds.
pub const TIMEOUT_S_DEFAULT: u32 = 3;
/// Initialisation time when none is given, in seconds.
pub const INIT_TIMEOUT_S_DEFAULT: u32 = 65;
/// Longest initialisation time, in seconds.
pub const INIT_TIMEOUT_S_MAX: u32 = 300;
/// Namespaces in an account.
pub const NAMESPACES_MAX: usize = 5;
/// Functions in a namespace. SCF gives 50; a self-hosted platform has no reason to stop there, so this is a
/// default of the configuration, not a law.
pub const FUNCTIONS_PER_NAMESPACE_DEFAULT: usize = 10_000;
/// Published versions of one function.
pub const VERSIONS_MAX: usize = 1000;
/// Layers bound to one version.
pub const LAYERS_PER_VERSION_MAX: usize = 5;
/// Layers in an account.
pub const LAYERS_MAX: usize = 20;
/// Versions of one layer.
pub const LAYER_VERSIONS_MAX: usize = 200;
/// Aliases of one function. Ours: SCF names the error (`LimitExceeded.Alias`) but not the number.
pub const ALIASES_MAX: usize = 100;
/// Custom domains. Ours: SCF documents no number.
pub const DOMAINS_MAX: usize = 1000;
/// Paths of one custom domain. Ours.
pub const DOMAIN_ENDPOINTS_MAX: usize = 100;
/// Rewriting rules of one path of a custom domain. Ours.
pub const PATH_REWRITES_MAX: usize = 20;
/// Certificates. Ours.
pub const CERTIFICATES_MAX: usize = 1000;
/// Invocations that may call each other in a row before the next one is taken for part of a loop. Ours, after Lambda's loop detection.
pub const CALL_DEPTH_MAX: u32 = 16;
/// Memory quota of the account's instances in a region, in MB.
pub const CONCURRENCY_MB_DEFAULT: u64 = 128_000;
/// The part of that quota that reservations must leave free, in MB.
pub const CONCURRENCY_UNRESERVABLE_MB: u64 = 12_800;
/// Processes and threads in one instance.
pub const PIDS_MAX: u32 = 1024;
/// Open files of one process in an instance.
pub const OPEN_FILES_MAX: u64 = 1024;
/// `/tmp` of an instance, in bytes.
pub const TMP_BYTES: u64 = 512 * 1024 * 1024;
/// `Offset + Limit` of a log query.
pub const LOG_QUERY_WINDOW_MAX: u64 = 10_000;
/// Largest page of a list action.
pub const PAGE_LIMIT_MAX: u64 = 100;
/// Page of a list action when no `Limit` is given.
pub const PAGE_LIMIT_DEFAULT: u64 = 20;

/// True when `mb` is a memory size that SCF sells: 64, or 128 to 3072 in steps of 128.
pub fn memory_mb_is_valid(mb: u32) -> bool {
    mb == 64 || ((128..=MEMORY_MB_MAX).contains(&mb) && mb.is_multiple_of(128))
}
