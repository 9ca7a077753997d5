package mayfly.runtime;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads JSON texts into maps, lists, texts, numbers, truth values and null. */
final class Json {
    private static final int DEPTH_MAX = 1000;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** What a text says. Throws IllegalArgumentException for what is no JSON, or nested too deep. */
    static Object read(String text) {
        Json reader = new Json(text);
        Object value = reader.value(0);
        reader.space();
        if (reader.at < text.length()) {
            throw reader.wrong();
        }
        return value;
    }

    private IllegalArgumentException wrong() {
        return new IllegalArgumentException("no JSON at character " + at);
    }

    private void space() {
        while (at < text.length()) {
            char c = text.charAt(at);
            if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
                return;
            }
            at++;
        }
    }

    private char next() {
        if (at >= text.length()) {
            throw wrong();
        }
        return text.charAt(at++);
    }

    private Object value(int depth) {
        if (depth > DEPTH_MAX) {
            throw new IllegalArgumentException("more than " + DEPTH_MAX + " levels");
        }
        space();
        char first = next();
        switch (first) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                at--;
                return number();
        }
    }

    private Object word(String word, Object meaning) {
        if (!text.startsWith(word, at - 1)) {
            throw wrong();
        }
        at += word.length() - 1;
        return meaning;
    }

    private Map<String, Object> object(int depth) {
        Map<String, Object> map = new LinkedHashMap<>();
        space();
        if (at < text.length() && text.charAt(at) == '}') {
            at++;
            return map;
        }
        while (true) {
            space();
            if (next() != '"') {
                throw wrong();
            }
            String key = string();
            space();
            if (next() != ':') {
                throw wrong();
            }
            map.put(key, value(depth + 1));
            space();
            char c = next();
            if (c == '}') {
                return map;
            }
            if (c != ',') {
                throw wrong();
            }
        }
    }

    private List<Object> array(int depth) {
        List<Object> list = new ArrayList<>();
        space();
        if (at < text.length() && text.charAt(at) == ']') {
            at++;
            return list;
        }
        while (true) {
            list.add(value(depth + 1));
            space();
            char c = next();
            if (c == ']') {
                return list;
            }
            if (c != ',') {
                throw wrong();
            }
        }
    }

    private String string() {
        int from = at;
        while (at < text.length() && text.charAt(at) != '"' && text.charAt(at) != '\\') {
            at++;
        }
        if (at < text.length() && text.charAt(at) == '"') {
            return text.substring(from, at++);
        }
        StringBuilder out = new StringBuilder(text.substring(from, at));
        while (true) {
            char c = next();
            if (c == '"') {
                return out.toString();
            }
            out.append(c == '\\' ? escape() : c);
        }
    }

    private char escape() {
        char c = next();
        switch (c) {
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                if (at + 4 > text.length()) {
                    throw wrong();
                }
                at += 4;
                return (char) Integer.parseInt(text.substring(at - 4, at), 16);
            default:
                return c;
        }
    }

    private Number number() {
        int from = at;
        boolean whole = true;
        while (at < text.length()) {
            char c = text.charAt(at);
            if (c == '.' || c == 'e' || c == 'E') {
                whole = false;
            } else if (c != '-' && c != '+' && (c < '0' || c > '9')) {
                break;
            }
            at++;
        }
        String digits = text.substring(from, at);
        try {
            if (!whole) {
                return Double.valueOf(digits);
            }
            if (digits.length() < 10) {
                return Integer.valueOf(digits);
            }
            if (digits.length() < 19) {
                long value = Long.parseLong(digits);
                return (int) value == value ? (Number) (int) value : (Number) value;
            }
            return new BigInteger(digits);
        } catch (NumberFormatException e) {
            throw wrong();
        }
    }

    /** Appends a text with its quotes. */
    static void quote(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c >= ' ') {
                // Half of a pair alone has no UTF-8.
                out.append(Character.isSurrogate(c) && !paired(text, i) ? '\ufffd' : c);
            } else if (c == '\n') {
                out.append("\\n");
            } else if (c == '\t') {
                out.append("\\t");
            } else {
                out.append(String.format("\\u%04x", (int) c));
            }
        }
        out.append('"');
    }

    private static boolean paired(String text, int i) {
        return Character.isHighSurrogate(text.charAt(i))
            ? i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))
            : i > 0 && Character.isHighSurrogate(text.charAt(i - 1));
    }

    /** Appends a number. Throws IllegalArgumentException for what JSON has no numbers for. */
    static void number(Number value, StringBuilder out) {
        if (value instanceof Double || value instanceof Float) {
            double number = value.doubleValue();
            if (Double.isNaN(number) || Double.isInfinite(number)) {
                throw new IllegalArgumentException("JSON has no number for " + number);
            }
        }
        out.append(value instanceof BigDecimal ? ((BigDecimal) value).toPlainString() : value.toString());
    }
}
