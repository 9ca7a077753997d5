<?php
// Writes the php.ini of every PHP instance: our settings, and the extensions that this machine's PHP loads. Run on the
// host, once for each build of PHP: `php prepare.php TARGET`.

declare(strict_types=1);

/** Extensions for people at work, which slow every call, or which want settings that an instance does not have. */
const LEFT_OUT = ['xdebug', 'pcov', 'blackfire', 'newrelic'];

const SETTINGS = <<<'INI'
; What the host's own php.ini says does not count: instances are the same on every machine.
memory_limit = -1
max_execution_time = 0
display_errors = 1
display_startup_errors = 1
error_reporting = E_ALL
html_errors = 0
log_errors = 0
implicit_flush = 1
output_buffering = 0
date.timezone = UTC
default_charset = UTF-8
include_path = ".:/var/user:/opt"
sys_temp_dir = /tmp
variables_order = EGPCS
; Arguments in stack traces would carry events into logs.
zend.exception_ignore_args = 1
zend.assertions = -1
short_open_tag = 0
opcache.enable = 0
phar.readonly = 1

INI;

/** The `extension=` lines of the files that this PHP has read, in its order. */
function extensions(): array
{
    $files = array_map('trim', explode(',', (string) php_ini_scanned_files()));
    array_unshift($files, (string) php_ini_loaded_file());
    $found = [];
    foreach (array_filter($files) as $file) {
        foreach (file($file, FILE_IGNORE_NEW_LINES) ?: [] as $line) {
            if (!preg_match('/^\s*(zend_extension|extension)\s*=\s*"?([^";]+?)"?\s*(;.*)?$/', $line, $parts)) {
                continue;
            }
            $name = basename($parts[2], '.so');
            if (!in_array($name, LEFT_OUT, true) && $name !== 'opcache') {
                $found[$name] = "$parts[1] = $parts[2]";
            }
        }
    }
    return $found;
}

$target = $argv[1] ?? '';
$text = SETTINGS . implode("\n", extensions()) . "\n";
if ($target === '' || file_put_contents($target, $text) !== strlen($text)) {
    fwrite(STDERR, "cannot write `$target`\n");
    exit(1);
}
