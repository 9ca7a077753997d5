package mayfly.runtime;

import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.Locale;
import java.util.Map;

/** One instance: finds the handler `package.Class::method` and runs it for one event after the other, which the runtime API gives out. */
public final class Shim {
    private static final String CONTEXT = "com.qcloud.scf.runtime.Context";
    private static final int NOT_FOUND = 437;
    private static final int LOAD_FAILED = 443;
    private static final int USER_EXCEPTION = 430;
    private static final int OUT_OF_MEMORY = 434;
    private static final int MESSAGE_CHARS_MAX = 8192;
    private static final int STACK_CHARS_MAX = 32768;

    private final InputStream in;
    private final OutputStream out;
    /** Headers of the last answer, names in lower case. */
    private final Map<String, String> headers = new HashMap<>();
    private Method method;
    private Object target;

    private Shim(Socket socket) throws IOException {
        socket.setTcpNoDelay(true);
        in = new BufferedInputStream(socket.getInputStream(), 65536);
        out = socket.getOutputStream();
    }

    public static void main(String[] arguments) throws IOException {
        String host = System.getenv("SCF_RUNTIME_API");
        int port = Integer.parseInt(System.getenv("SCF_RUNTIME_API_PORT"));
        Shim shim = new Shim(new Socket(host, port));
        shim.load(System.getenv("_HANDLER"));
        try {
            while (true) {
                shim.serve();
            }
        } catch (IOException e) {
            // The platform is gone, or does not want this instance any more.
            Runtime.getRuntime().halt(0);
        }
    }

    // --- the runtime API ---------------------------------------------------------------------------------------------

    /** One call; returns the body of the answer. */
    private byte[] ask(String verb, String path, byte[] body) throws IOException {
        String head = verb + " " + path + " HTTP/1.1\r\nHost: mayfly\r\nContent-Length: " + body.length + "\r\n\r\n";
        byte[] text = head.getBytes(StandardCharsets.US_ASCII);
        if (body.length > 0 && body.length < 16384) {
            byte[] whole = Arrays.copyOf(text, text.length + body.length);
            System.arraycopy(body, 0, whole, text.length, body.length);
            out.write(whole);
        } else {
            out.write(text);
            out.write(body);
        }
        line();
        headers.clear();
        for (String line = line(); !line.isEmpty(); line = line()) {
            int colon = line.indexOf(':');
            headers.put(line.substring(0, Math.max(colon, 0)).toLowerCase(Locale.ROOT), line.substring(colon + 1).trim());
        }
        int length = Integer.parseInt(headers.getOrDefault("content-length", "0"));
        byte[] answer = in.readNBytes(length);
        if (answer.length < length) {
            throw new EOFException();
        }
        return answer;
    }

    private String line() throws IOException {
        StringBuilder text = new StringBuilder();
        for (int c = in.read(); c != '\n'; c = in.read()) {
            if (c < 0) {
                throw new EOFException();
            }
            if (c != '\r') {
                text.append((char) c);
            }
        }
        return text.toString();
    }

    // --- telling failures --------------------------------------------------------------------------------------------

    private static String clip(String text, int charsMax) {
        if (text.length() <= charsMax) {
            return text;
        }
        int half = charsMax / 2;
        return text.substring(0, half) + "\n… " + (text.length() - 2 * half) + " characters left out …\n" + text.substring(text.length() - half);
    }

    private static byte[] failure(int status, String type, String message, String stack) {
        StringBuilder out = new StringBuilder("{\"statusCode\":").append(status).append(",\"errorType\":");
        Json.quote(clip(type, 256), out);
        out.append(",\"errorMessage\":");
        Json.quote(clip(message, MESSAGE_CHARS_MAX), out);
        out.append(",\"stackTrace\":");
        Json.quote(clip(stack, STACK_CHARS_MAX), out);
        return out.append('}').toString().getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] failure(int status, Throwable thrown) {
        String message = String.valueOf(thrown.getMessage() == null ? thrown.getClass().getName() : thrown.getMessage());
        return failure(status, thrown.getClass().getName(), message, stack(thrown));
    }

    /** The stack as Java prints it, without what is below the user's first frame. */
    private static String stack(Throwable thrown) {
        Map<Throwable, Boolean> seen = new IdentityHashMap<>();
        for (Throwable t = thrown; t != null && seen.put(t, true) == null; t = t.getCause()) {
            StackTraceElement[] frames = t.getStackTrace();
            int end = frames.length;
            while (end > 0 && isMachinery(frames[end - 1].getClassName())) {
                end--;
            }
            t.setStackTrace(Arrays.copyOf(frames, end));
        }
        StringWriter text = new StringWriter();
        thrown.printStackTrace(new PrintWriter(text));
        return text.toString();
    }

    private static boolean isMachinery(String name) {
        return name.startsWith("mayfly.runtime.") || name.startsWith("java.lang.reflect.") || name.startsWith("jdk.internal.reflect.")
            || name.startsWith("java.lang.invoke.") || name.equals("java.lang.Class") || name.startsWith("java.lang.Class$");
    }

    /** Tells why the function could not be loaded, and ends. */
    private void give(byte[] failure) throws IOException {
        flush();
        ask("POST", "/runtime/init/error", failure);
        Runtime.getRuntime().halt(1);
    }

    private static void flush() {
        System.out.flush();
        System.err.flush();
    }

    // --- loading -----------------------------------------------------------------------------------------------------

    private void load(String handler) throws IOException {
        int colons = handler.indexOf("::");
        String className = colons < 0 ? "" : handler.substring(0, colons);
        String name = colons < 0 ? "" : handler.substring(colons + 2);
        if (className.isEmpty() || name.isEmpty()) {
            give(failure(NOT_FOUND, "HandlerNotFound", "the handler `" + handler + "` is not of the form package.Class::method", ""));
        }
        try {
            Class<?> type;
            try {
                type = Class.forName(className);
            } catch (ClassNotFoundException e) {
                give(failure(NOT_FOUND, "HandlerNotFound", "the package has no class `" + className + "`", ""));
                return;
            }
            method = find(type, name);
            if (method == null) {
                String message = "the class `" + className + "` has no method `" + name + "` with an event, a context, both or neither";
                give(failure(NOT_FOUND, "HandlerNotFound", message, ""));
            }
            method.setAccessible(true);
            if (!Modifier.isStatic(method.getModifiers())) {
                var constructor = type.getDeclaredConstructor();
                constructor.setAccessible(true);
                target = constructor.newInstance();
            }
        } catch (InvocationTargetException | ExceptionInInitializerError e) {
            give(failure(LOAD_FAILED, e.getCause() == null ? e : e.getCause()));
        } catch (NoSuchMethodException e) {
            give(failure(LOAD_FAILED, "NoSuchMethodException", "the class `" + className + "` has no constructor without parameters", ""));
        } catch (Throwable e) {
            give(failure(LOAD_FAILED, e));
        }
        flush();
        ask("POST", "/runtime/init/ready", new byte[] {' '});
    }

    private static boolean isContext(Class<?> type) {
        return type.getName().equals(CONTEXT) || type == FunctionContext.class;
    }

    /** The method of that name that takes most: event and context, or an event, or a context, or nothing. */
    private static Method find(Class<?> type, String name) {
        Method best = null;
        for (Class<?> c = type; c != null && best == null; c = c.getSuperclass()) {
            for (Method method : c.getDeclaredMethods()) {
                Class<?>[] parameters = method.getParameterTypes();
                boolean fits = parameters.length < 2 || parameters.length == 2 && isContext(parameters[1]);
                boolean ours = method.getName().equals(name) && !method.isBridge() && !Modifier.isAbstract(method.getModifiers());
                if (fits && ours && (best == null || parameters.length > best.getParameterCount())) {
                    best = method;
                }
            }
        }
        return best;
    }

    // --- serving -----------------------------------------------------------------------------------------------------

    private void serve() throws IOException {
        String event = new String(ask("GET", "/runtime/invocation/next", new byte[0]), StandardCharsets.UTF_8);
        byte[] answer = null;
        byte[] failure = null;
        boolean over = false;
        try {
            Object value = call(event);
            try {
                answer = Beans.text(value).getBytes(StandardCharsets.UTF_8);
            } catch (InvocationTargetException e) {
                failure = failure(USER_EXCEPTION, e.getCause());
            } catch (IllegalArgumentException | ReflectiveOperationException e) {
                String message = "the return value cannot be expressed in JSON: " + e.getMessage();
                failure = failure(USER_EXCEPTION, e.getClass().getName(), message, "");
            }
        } catch (InvocationTargetException e) {
            over = e.getCause() instanceof VirtualMachineError && !(e.getCause() instanceof StackOverflowError);
            failure = failure(over ? OUT_OF_MEMORY : USER_EXCEPTION, e.getCause());
        } catch (OutOfMemoryError e) {
            over = true;
            failure = failure(OUT_OF_MEMORY, e);
        } catch (Throwable e) {
            failure = failure(USER_EXCEPTION, e);
        }
        flush();
        if (failure == null) {
            ask("POST", "/runtime/invocation/response", answer);
        } else {
            ask("POST", "/runtime/invocation/error", failure);
        }
        if (over) {
            Runtime.getRuntime().halt(1);
        }
    }

    private Object call(String event) throws Throwable {
        Class<?>[] types = method.getParameterTypes();
        Object[] arguments = new Object[types.length];
        for (int i = 0; i < types.length; i++) {
            arguments[i] = isContext(types[i]) ? context() : event(event, i);
        }
        return method.invoke(target, arguments);
    }

    private FunctionContext context() {
        int memory = Integer.parseInt(headers.getOrDefault("memory_limit_in_mb", "0"));
        int time = Integer.parseInt(headers.getOrDefault("time_limit_in_ms", "0"));
        return new FunctionContext(headers.getOrDefault("request_id", ""), memory, time);
    }

    /** A parameter that is a text gets the JSON text of whatever is no text itself. */
    private Object event(String text, int index) throws Throwable {
        boolean raw = method.getParameterTypes()[index] == String.class && !text.trim().startsWith("\"") && !text.trim().equals("null");
        if (raw) {
            return text;
        }
        try {
            return Beans.make(Json.read(text), method.getGenericParameterTypes()[index]);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException("the event cannot be handed to the handler: " + e.getMessage());
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }
}
