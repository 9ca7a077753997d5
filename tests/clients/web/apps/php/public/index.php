<?php
// A front controller as frameworks have it: every request that is no file below public/ comes here and is routed.

declare(strict_types=1);

require __DIR__ . '/../src/Router.php';

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path !== '/' && is_file(__DIR__ . $path)) {
    return false;
}

$router = new Router();

$router->add('GET', '/', fn () => html('<h1>Hello World!</h1>'));

$router->add('GET', '/users/{id}', fn (string $id) => json(['id' => $id, 'query' => $_GET]));

$router->add('GET', '/login', function () {
    session_start();
    $_SESSION['token'] = bin2hex(random_bytes(16));
    return html('<form method="post"><input name="token" type="hidden" value="' . $_SESSION['token'] . '"><input name="user"></form>');
});

$router->add('POST', '/login', function () {
    session_start();
    if (!hash_equals($_SESSION['token'] ?? '', $_POST['token'] ?? '')) {
        return html('The form has expired', 403);
    }
    session_regenerate_id(true);
    $_SESSION['user'] = $_POST['user'];
    header('Location: ' . ($_SERVER['HTTP_X_FORWARDED_PREFIX'] ?? '') . '/account', true, 303);
});

$router->add('GET', '/account', function () {
    session_start();
    return isset($_SESSION['user']) ? html('Hello ' . htmlspecialchars($_SESSION['user'])) : html('Who are you?', 401);
});

$router->add('POST', '/logout', function () {
    session_start();
    session_destroy();
    return html('Bye');
});

$router->add('POST', '/upload', function () {
    $file = $_FILES['file'];
    return json(['name' => $file['name'], 'error' => $file['error'], 'n' => $file['size'], 'sha256' => hash_file('sha256', $file['tmp_name']), 'note' => $_POST['note']]);
});

$router->add('PUT', '/raw', fn () => json(['n' => strlen($body = file_get_contents('php://input')), 'sha256' => hash('sha256', $body)]));

$router->add('GET', '/events', function () {
    header('Content-Type: text/event-stream');
    for ($n = 0; $n < 5; $n++) {
        echo "data: $n\n\n";
        @ob_flush();
        flush();
        usleep(100_000);
    }
});

$router->add('GET', '/where', fn () => json([
    'host' => $_SERVER['HTTP_HOST'],
    'address' => $_SERVER['HTTP_X_FORWARDED_FOR'],
    'function' => $_SERVER['HTTP_X_SCF_NAME'],
    'cookies' => $_COOKIE,
]));

$router->add('GET', '/fail', fn () => throw new RuntimeException('on purpose'));

$router->run($_SERVER['REQUEST_METHOD'], rawurldecode($path));

function html(string $text, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: text/html; charset=utf-8');
    echo $text;
}

function json(mixed $value): void
{
    header('Content-Type: application/json');
    echo json_encode($value, JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR);
}
