<?php

declare(strict_types=1);

/** Routes with placeholders in braces; 404 for paths that nobody knows, 405 for methods, 500 for what is thrown. */
final class Router
{
    /** @var array<string, array<string, callable>> handlers by pattern and method */
    private array $routes = [];

    public function add(string $method, string $path, callable $handler): void
    {
        $pattern = '#^' . preg_replace('#\\\{(\w+)\\\}#', '(?P<$1>[^/]+)', preg_quote($path, '#')) . '$#';
        $this->routes[$pattern][$method] = $handler;
    }

    public function run(string $method, string $path): void
    {
        foreach ($this->routes as $pattern => $handlers) {
            if (!preg_match($pattern, $path, $found)) {
                continue;
            }
            $handler = $handlers[$method] ?? ($method === 'HEAD' ? $handlers['GET'] ?? null : null);
            if ($handler === null) {
                header('Allow: ' . implode(', ', array_keys($handlers)));
                html('Method not allowed', 405);
                return;
            }
            try {
                $handler(...array_filter($found, 'is_string', ARRAY_FILTER_USE_KEY));
            } catch (Throwable $error) {
                error_log((string) $error);
                html('Something broke', 500);
            }
            return;
        }
        html('No such page: ' . htmlspecialchars($path), 404);
    }
}
