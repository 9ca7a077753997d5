<?php
// One instance: loads the user's handler and answers invocations on fd 3. See docs/runtime-protocol.md.
//
// The last lines of this file run in the global scope, so that variables at the top level of the user's file are what PHP
// programs take them for: globals.

declare(strict_types=1);

namespace Mayfly;

/** The second argument of a handler: SCF's fields, as an object. */
#[\AllowDynamicProperties]
final class Context extends \stdClass
{
    /** Milliseconds until the invocation's time is up. */
    public function getRemainingTimeInMillis(): int
    {
        return max(0, Shim::deadlineMs() - (int) (microtime(true) * 1000));
    }
}

/** Why the handler is not there. */
final class NotFound extends \Exception
{
}

final class Shim
{
    private const BIND = 0x01;
    private const INVOKE = 0x02;
    private const HELLO = 0x81;
    private const READY = 0x82;
    private const ERROR = 0x83;
    private const RESULT = 0x84;
    private const HEADER_BYTES = 8;
    private const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;

    private const RESULT_TOO_LARGE = 407;
    private const USER_EXCEPTION = 430;
    private const NOT_FOUND = 437;
    private const LOAD_FAILED = 443;
    private const INIT_FAILED = 445;
    private const MESSAGE_BYTES_MAX = 8192;
    private const STACK_BYTES_MAX = 32768;

    private const JSON_DEPTH_MAX = 4096;
    private const JSON_FLAGS =
        JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_LINE_TERMINATORS | JSON_PRESERVE_ZERO_FRACTION | JSON_THROW_ON_ERROR;
    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

    /** @var resource */
    private static $stream;
    private static int $pid;
    /** `new` until BIND, then `loading`, `idle` and `running`; `over` when nothing may be sent any more. */
    private static string $phase = 'new';
    private static float $started;
    private static string $file;
    private static string $function;
    private static array $context = [];
    private static int $resultBytesMax;
    private static ?string $trigger = null;
    private static int $deadlineMs = 0;

    // --- frames ------------------------------------------------------------------------------------------------------

    private static function send(int $kind, string $payload): void
    {
        if (getmypid() !== self::$pid) {
            // A child of user code's that came back from the handler: there is one answer, and it is the parent's.
            self::$phase = 'over';
            exit(0);
        }
        $frame = pack('VV', strlen($payload), $kind) . $payload;
        for ($sent = 0; $sent < strlen($frame); $sent += $count) {
            $count = @fwrite(self::$stream, $sent === 0 ? $frame : substr($frame, $sent));
            if ($count === false || $count === 0) {
                self::leave();
            }
        }
    }

    /** Ends the process without a word: the node is gone, or said what it must not say. */
    private static function leave(): void
    {
        self::$phase = 'over';
        exit(1);
    }

    private static function read(int $size): string
    {
        $bytes = '';
        while (($missing = $size - strlen($bytes)) > 0) {
            $part = @fread(self::$stream, $missing);
            if ($part === false || ($part === '' && feof(self::$stream))) {
                self::leave();
            }
            $bytes .= $part;
        }
        return $bytes;
    }

    /** The next frame's payload; it must be of this kind. */
    private static function expect(int $wanted): string
    {
        $head = unpack('Vsize/Vkind', self::read(self::HEADER_BYTES));
        if ($head['size'] > self::PAYLOAD_BYTES_MAX || $head['kind'] !== $wanted) {
            self::leave();
        }
        return self::read($head['size']);
    }

    // --- telling failures --------------------------------------------------------------------------------------------

    private static function clip(string $text, int $bytesMax): string
    {
        if (strlen($text) <= $bytesMax) {
            return $text;
        }
        $half = intdiv($bytesMax, 2);
        return substr($text, 0, $half) . "\n… " . (strlen($text) - 2 * $half) . " bytes left out …\n" . substr($text, -$half);
    }

    private static function fail(int $status, string $type, string $message, string $stack = ''): void
    {
        $failure = [
            'statusCode' => $status,
            'errorType' => self::clip($type, 256),
            'errorMessage' => self::clip($message, self::MESSAGE_BYTES_MAX),
            'stackTrace' => self::clip($stack, self::STACK_BYTES_MAX),
        ];
        self::send(self::ERROR, json_encode($failure, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE));
    }

    /** Tells what user code threw; a `__toString` of it may throw in turn. */
    private static function failThrown(int $status, \Throwable $thrown): void
    {
        try {
            $lines = explode("\n", (string) $thrown);
        } catch (\Throwable $_) {
            $lines = [get_class($thrown) . ': ' . $thrown->getMessage()];
        }
        $ours = '/^#\d+ (' . preg_quote(__FILE__, '/') . '\(|\{main\}$)/';
        $stack = implode("\n", preg_grep($ours, $lines, PREG_GREP_INVERT));
        self::fail($status, get_class($thrown), $thrown->getMessage(), $stack);
    }

    /**
     * Takes nothing more from the node. Called before the answer of a process that cannot go on: what the node sends from
     * now on it knows to be unread, and gives to another instance.
     */
    private static function hangUp(): void
    {
        stream_socket_shutdown(self::$stream, STREAM_SHUT_RD);
    }

    /** Ends the process. */
    private static function stop(): void
    {
        self::$phase = 'over';
        stream_socket_shutdown(self::$stream, STREAM_SHUT_RDWR);
        exit(1);
    }

    /** The process ends of itself: user code called `exit`, or PHP met what no code can catch. */
    public static function ended(): void
    {
        if (self::$phase === 'over' || getmypid() !== self::$pid) {
            return;
        }
        $error = error_get_last();
        $status = ['loading' => self::LOAD_FAILED, 'running' => self::USER_EXCEPTION][self::$phase] ?? 0;
        if ($status !== 0 && $error !== null && ($error['type'] & self::FATAL) !== 0) {
            self::hangUp();
            $place = "{$error['file']}:{$error['line']}";
            self::fail($status, 'FatalError', $error['message'], "PHP Fatal error: {$error['message']} in $place");
        }
        self::$phase = 'over';
        stream_socket_shutdown(self::$stream, STREAM_SHUT_RDWR);
    }

    // --- loading -----------------------------------------------------------------------------------------------------

    public static function greet(): void
    {
        self::$pid = (int) getmypid();
        $stream = fopen('php://fd/3', 'r+b');
        if ($stream === false) {
            exit(1);
        }
        self::$stream = $stream;
        stream_set_timeout($stream, -1);
        stream_set_chunk_size($stream, 65536);
        register_shutdown_function(static function (): void {
            // Functions that user code registers run between this and `ended`, and may still print.
            register_shutdown_function([self::class, 'ended']);
        });
        self::send(self::HELLO, json_encode(['protocol' => 1, 'runtime' => 'php', 'version' => PHP_VERSION]));
    }

    public static function bind(): void
    {
        $bound = json_decode(self::expect(self::BIND), true, 64);
        self::$started = microtime(true);
        self::$phase = 'loading';
        try {
            self::replaceEnvironment((array) ($bound['environment'] ?? []));
            self::$resultBytesMax = (int) $bound['result_bytes_max'];
            self::$context = self::contextOf((array) ($bound['context'] ?? []));
            if (!chdir($bound['code'])) {
                throw new \RuntimeException('the code folder cannot be entered');
            }
        } catch (\Throwable $error) {
            self::fail(self::INIT_FAILED, get_class($error), 'the runtime could not start: ' . $error->getMessage());
            self::stop();
        }
        try {
            self::locate((string) $bound['handler'], (string) $bound['code']);
        } catch (NotFound $error) {
            self::fail(self::NOT_FOUND, 'HandlerNotFound', $error->getMessage());
            self::stop();
        }
        error_clear_last();
    }

    private static function replaceEnvironment(array $environment): void
    {
        foreach (array_keys(getenv()) as $name) {
            putenv((string) $name);
            unset($_SERVER[$name]);
        }
        foreach ($environment as $name => $value) {
            putenv("$name=$value");
            $_SERVER[$name] = $value;
        }
        $_ENV = $environment;
    }

    private static function contextOf(array $given): array
    {
        $environ = (array) ($given['environ'] ?? []);
        $pairs = [];
        foreach ($environ as $name => $value) {
            $pairs[] = "$name=$value";
        }
        $fields = ['memory_limit_in_mb', 'time_limit_in_ms', 'function_name', 'function_version', 'namespace',
            'tencentcloud_region', 'tencentcloud_appid', 'tencentcloud_uin'];
        $context = ['request_id' => ''];
        foreach ($fields as $field) {
            $context[$field] = $given[$field] ?? null;
        }
        $context['environment'] = json_encode((object) $environ, self::JSON_FLAGS);
        $context['environ'] = implode(';', $pairs);
        return $context;
    }

    /** Finds the file that `dir/file.function` means. */
    private static function locate(string $handler, string $code): void
    {
        $dot = strrpos($handler, '.');
        $base = $dot === false ? '' : substr($handler, 0, $dot);
        $function = $dot === false ? '' : substr($handler, $dot + 1);
        if ($base === '' || $function === '' || strpos($handler, "\0") !== false) {
            throw new NotFound("the handler `$handler` is not of the form file.function");
        }
        if ($base[0] === '/' || in_array('..', explode('/', $base), true)) {
            throw new NotFound("the handler `$handler` leads out of the package");
        }
        self::$file = "$code/$base.php";
        self::$function = $function;
        if (!is_file(self::$file)) {
            throw new NotFound("the package has no file `$base.php`");
        }
        $_SERVER['argv'] = [self::$file];
        $_SERVER['argc'] = 1;
        foreach (['SCRIPT_NAME', 'SCRIPT_FILENAME', 'PATH_TRANSLATED', 'PHP_SELF'] as $name) {
            $_SERVER[$name] = self::$file;
        }
    }

    public static function file(): string
    {
        return self::$file;
    }

    public static function loadFailed(\Throwable $thrown): void
    {
        self::flush();
        self::failThrown(self::LOAD_FAILED, $thrown);
        self::stop();
    }

    // --- serving -----------------------------------------------------------------------------------------------------

    public static function deadlineMs(): int
    {
        return self::$deadlineMs;
    }

    /** What user code holds back in output buffers belongs to the log of the invocation that printed it. */
    private static function flush(): void
    {
        while (ob_get_level() > 0 && @ob_end_flush()) {
            continue;
        }
    }

    public static function serve(): void
    {
        self::flush();
        if (!function_exists(self::$function)) {
            $message = '`' . basename(self::$file) . '` defines no function `' . self::$function . '`';
            self::fail(self::NOT_FOUND, 'HandlerNotFound', $message);
            self::stop();
        }
        $initUs = (int) ((microtime(true) - self::$started) * 1e6);
        self::$phase = 'idle';
        self::send(self::READY, json_encode(['init_us' => $initUs, 'fork' => null]));
        while (true) {
            self::invoke(self::expect(self::INVOKE));
        }
    }

    private static function invoke(string $payload): void
    {
        $metaBytes = unpack('V', $payload)[1];
        $meta = json_decode(substr($payload, 4, $metaBytes), true);
        if (!is_array($meta)) {
            self::leave();
        }
        if ($meta['trigger'] !== self::$trigger) {
            self::setTrigger($meta['trigger']);
        }
        self::$deadlineMs = (int) $meta['deadline_ms'];
        $context = new Context();
        foreach (self::$context as $name => $value) {
            $context->$name = $value;
        }
        $context->request_id = $meta['request_id'];
        error_clear_last();
        self::$phase = 'running';
        try {
            $event = json_decode(substr($payload, 4 + $metaBytes), false, self::JSON_DEPTH_MAX, JSON_THROW_ON_ERROR);
            unset($payload);
            $value = (self::$function)($event, $context);
        } catch (\Throwable $thrown) {
            self::flush();
            self::failThrown(self::USER_EXCEPTION, $thrown);
            self::$phase = 'idle';
            return;
        }
        self::flush();
        self::answer($value);
        self::$phase = 'idle';
    }

    private static function answer($value): void
    {
        try {
            $text = json_encode($value, self::JSON_FLAGS, self::JSON_DEPTH_MAX);
        } catch (\Throwable $error) {
            $message = 'the return value cannot be expressed in JSON: ' . $error->getMessage();
            self::fail(self::USER_EXCEPTION, get_class($error), $message);
            return;
        }
        if (strlen($text) > self::$resultBytesMax) {
            $message = 'the return value is ' . strlen($text) . ' bytes of JSON; at most ' . self::$resultBytesMax . ' are allowed';
            self::fail(self::RESULT_TOO_LARGE, 'ResponseTooLarge', $message);
            return;
        }
        self::send(self::RESULT, $text);
    }

    private static function setTrigger(?string $trigger): void
    {
        self::$trigger = $trigger;
        if ($trigger === null) {
            putenv('TRIGGER_SRC');
            unset($_ENV['TRIGGER_SRC'], $_SERVER['TRIGGER_SRC']);
            return;
        }
        putenv("TRIGGER_SRC=$trigger");
        $_ENV['TRIGGER_SRC'] = $_SERVER['TRIGGER_SRC'] = $trigger;
    }
}

Shim::greet();
Shim::bind();
try {
    require Shim::file();
} catch (\Throwable $thrown) {
    Shim::loadFailed($thrown);
}
Shim::serve();
