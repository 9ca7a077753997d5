package mayfly.runtime;

import java.lang.annotation.Annotation;
import java.lang.reflect.AnnotatedElement;
import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/** Between what JSON has and what handlers declare: basic types and their wrappers, texts, collections, and objects by their properties. */
final class Beans {
    private static final int DEPTH_MAX = 256;
    /** Annotations that give a property its name in JSON, and the member of each that holds it. */
    private static final Map<String, String> NAMES = Map.of(
        "com.alibaba.fastjson.annotation.JSONField", "name",
        "com.fasterxml.jackson.annotation.JsonProperty", "value",
        "com.google.gson.annotations.SerializedName", "value");
    private static final Map<Class<?>, Map<String, Property>> KNOWN = new HashMap<>();

    private Beans() {}

    /** How one property is read and written; either may be impossible. */
    private static final class Property {
        String name;
        Method getter;
        Method setter;
        Field field;

        Type type() {
            return setter != null ? setter.getGenericParameterTypes()[0] : field.getGenericType();
        }
    }

    // --- properties --------------------------------------------------------------------------------------------------

    /** The properties of a class by their names in Java: those with fields in the fields' order, then the others. */
    private static synchronized Map<String, Property> properties(Class<?> type) {
        Map<String, Property> known = KNOWN.get(type);
        if (known != null) {
            return known;
        }
        Map<String, Property> found = new LinkedHashMap<>();
        for (Class<?> c = type; c != null && c != Object.class; c = c.getSuperclass()) {
            for (Field field : c.getDeclaredFields()) {
                if (!Modifier.isStatic(field.getModifiers()) && !Modifier.isTransient(field.getModifiers()) && !field.isSynthetic()) {
                    found.computeIfAbsent(field.getName(), name -> new Property()).field = field;
                }
            }
        }
        Map<String, Method> methods = new TreeMap<>();
        for (Method method : type.getMethods()) {
            boolean plain = !Modifier.isStatic(method.getModifiers()) && !method.isBridge() && method.getDeclaringClass() != Object.class;
            if (plain) {
                methods.put(method.getName() + method.getParameterCount(), method);
            }
        }
        boolean isRecord = type.getSuperclass() != null && type.getSuperclass().getName().equals("java.lang.Record");
        for (Method method : methods.values()) {
            String name = method.getName();
            int parameters = method.getParameterCount();
            boolean isTruth = method.getReturnType() == boolean.class || method.getReturnType() == Boolean.class;
            if (parameters == 0 && isRecord && found.containsKey(name)) {
                found.get(name).getter = method;
            } else if (parameters == 0 && name.startsWith("get") && name.length() > 3 && method.getReturnType() != void.class) {
                property(found, name.substring(3)).getter = method;
            } else if (parameters == 0 && name.startsWith("is") && name.length() > 2 && isTruth) {
                property(found, name.substring(2)).getter = method;
            } else if (parameters == 1 && name.startsWith("set") && name.length() > 3) {
                property(found, name.substring(3)).setter = method;
            }
        }
        for (Map.Entry<String, Property> entry : found.entrySet()) {
            Property property = entry.getValue();
            property.name = entry.getKey();
            for (AnnotatedElement element : new AnnotatedElement[] {property.field, property.getter, property.setter}) {
                property.name = element == null ? property.name : named(element, property.name);
            }
        }
        KNOWN.put(type, found);
        return found;
    }

    /** `FirstName` belongs to the field `firstName`, or to one that is written like that. */
    private static Property property(Map<String, Property> found, String name) {
        String small = Character.toLowerCase(name.charAt(0)) + name.substring(1);
        if (found.containsKey(name) && !found.containsKey(small)) {
            return found.get(name);
        }
        boolean upper = name.length() > 1 && Character.isUpperCase(name.charAt(0)) && Character.isUpperCase(name.charAt(1));
        return found.computeIfAbsent(upper && !found.containsKey(small) ? name : small, n -> new Property());
    }

    private static String named(AnnotatedElement element, String otherwise) {
        for (Annotation annotation : element.getAnnotations()) {
            String member = NAMES.get(annotation.annotationType().getName());
            if (member != null) {
                try {
                    Object name = annotation.annotationType().getMethod(member).invoke(annotation);
                    return "".equals(name) ? otherwise : (String) name;
                } catch (ReflectiveOperationException e) {
                    return otherwise;
                }
            }
        }
        return otherwise;
    }

    private static Property find(Map<String, Property> properties, String name) {
        Property inAnyCase = null;
        for (Property property : properties.values()) {
            if (property.name.equals(name)) {
                return property;
            }
            inAnyCase = property.name.equalsIgnoreCase(name) ? property : inAnyCase;
        }
        return inAnyCase != null ? inAnyCase : properties.get(name);
    }

    // --- from JSON ---------------------------------------------------------------------------------------------------

    /** Makes what JSON said a value of a declared type. Throws IllegalArgumentException when it cannot be one. */
    static Object make(Object value, Type type) throws ReflectiveOperationException {
        if (type instanceof ParameterizedType) {
            ParameterizedType generic = (ParameterizedType) type;
            return makeOf(value, (Class<?>) generic.getRawType(), generic.getActualTypeArguments());
        }
        if (type instanceof WildcardType) {
            return make(value, ((WildcardType) type).getUpperBounds()[0]);
        }
        if (type instanceof GenericArrayType) {
            return make(value, Array.newInstance(raw(((GenericArrayType) type).getGenericComponentType()), 0).getClass());
        }
        return type instanceof Class ? makeOf(value, (Class<?>) type, new Type[0]) : value;
    }

    private static Class<?> raw(Type type) {
        return type instanceof ParameterizedType ? raw(((ParameterizedType) type).getRawType()) : type instanceof Class ? (Class<?>) type : Object.class;
    }

    private static IllegalArgumentException refuse(Object value, Class<?> type) {
        String what = value instanceof Map ? "an object" : value instanceof List ? "an array" : "`" + value + "`";
        return new IllegalArgumentException(what + " cannot be made a " + type.getName());
    }

    private static Object makeOf(Object value, Class<?> type, Type[] parameters) throws ReflectiveOperationException {
        if (value == null) {
            if (type.isPrimitive()) {
                throw refuse(null, type);
            }
            return null;
        }
        if (type == Object.class) {
            return value;
        }
        if (type == String.class || type == CharSequence.class) {
            return value instanceof String ? value : text(value);
        }
        if (type == boolean.class || type == Boolean.class) {
            if (value instanceof Boolean) {
                return value;
            }
            throw refuse(value, type);
        }
        if (type == char.class || type == Character.class) {
            if (value instanceof String && ((String) value).length() == 1) {
                return ((String) value).charAt(0);
            }
            throw refuse(value, type);
        }
        if (type.isPrimitive() || Number.class.isAssignableFrom(type)) {
            return number(value, type);
        }
        if (type.isEnum()) {
            for (Object constant : type.getEnumConstants()) {
                if (((Enum<?>) constant).name().equals(value)) {
                    return constant;
                }
            }
            throw refuse(value, type);
        }
        if (type == byte[].class && value instanceof String) {
            return Base64.getDecoder().decode((String) value);
        }
        if (type.isArray() && value instanceof List) {
            List<?> list = (List<?>) value;
            Object array = Array.newInstance(type.getComponentType(), list.size());
            for (int i = 0; i < list.size(); i++) {
                Array.set(array, i, make(list.get(i), type.getComponentType()));
            }
            return array;
        }
        if (Collection.class.isAssignableFrom(type) && value instanceof List) {
            return collection((List<?>) value, type, parameters);
        }
        if (Map.class.isAssignableFrom(type) && value instanceof Map) {
            return map((Map<?, ?>) value, type, parameters);
        }
        if (type == Date.class && value instanceof Number) {
            return new Date(((Number) value).longValue());
        }
        if (value instanceof Map) {
            return object((Map<?, ?>) value, type);
        }
        throw refuse(value, type);
    }

    private static Object number(Object value, Class<?> type) {
        if (!(value instanceof Number) && !(value instanceof String)) {
            throw refuse(value, type);
        }
        try {
            BigDecimal exact = new BigDecimal(value.toString());
            switch (type.getName()) {
                case "int":
                case "java.lang.Integer":
                    return exact.intValueExact();
                case "long":
                case "java.lang.Long":
                    return exact.longValueExact();
                case "short":
                case "java.lang.Short":
                    return exact.shortValueExact();
                case "byte":
                case "java.lang.Byte":
                    return exact.byteValueExact();
                case "float":
                case "java.lang.Float":
                    return exact.floatValue();
                case "double":
                case "java.lang.Double":
                    return exact.doubleValue();
                case "java.math.BigInteger":
                    return exact.toBigIntegerExact();
                case "java.math.BigDecimal":
                    return exact;
                default:
                    return type == Number.class ? value : refused(value, type);
            }
        } catch (ArithmeticException | NumberFormatException e) {
            throw refuse(value, type);
        }
    }

    private static Object refused(Object value, Class<?> type) {
        throw refuse(value, type);
    }

    private static boolean isAbstract(Class<?> type) {
        return type.isInterface() || Modifier.isAbstract(type.getModifiers());
    }

    @SuppressWarnings("unchecked")
    private static Object collection(List<?> list, Class<?> type, Type[] parameters) throws ReflectiveOperationException {
        Collection<Object> out;
        if (!isAbstract(type)) {
            out = (Collection<Object>) type.getDeclaredConstructor().newInstance();
        } else {
            out = Set.class.isAssignableFrom(type) ? new LinkedHashSet<>() : new ArrayList<>();
        }
        if (!type.isInstance(out)) {
            throw refuse(list, type);
        }
        for (Object item : list) {
            out.add(parameters.length == 1 ? make(item, parameters[0]) : item);
        }
        return out;
    }

    @SuppressWarnings("unchecked")
    private static Object map(Map<?, ?> map, Class<?> type, Type[] parameters) throws ReflectiveOperationException {
        if (parameters.length != 2 && type.isInstance(map)) {
            return map;
        }
        Map<Object, Object> out = isAbstract(type) ? new LinkedHashMap<>() : (Map<Object, Object>) type.getDeclaredConstructor().newInstance();
        if (!type.isInstance(out)) {
            throw refuse(map, type);
        }
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            boolean typed = parameters.length == 2;
            out.put(typed ? make(entry.getKey(), parameters[0]) : entry.getKey(), typed ? make(entry.getValue(), parameters[1]) : entry.getValue());
        }
        return out;
    }

    private static Object object(Map<?, ?> map, Class<?> type) throws ReflectiveOperationException {
        if (isAbstract(type)) {
            throw refuse(map, type);
        }
        Constructor<?> constructor;
        try {
            constructor = type.getDeclaredConstructor();
        } catch (NoSuchMethodException e) {
            throw new IllegalArgumentException(type.getName() + " has no constructor without parameters");
        }
        constructor.setAccessible(true);
        Object made = constructor.newInstance();
        Map<String, Property> properties = properties(type);
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            Property property = find(properties, (String) entry.getKey());
            boolean settable = property != null && (property.setter != null || property.field != null && !Modifier.isFinal(property.field.getModifiers()));
            if (!settable || entry.getValue() == null) {
                continue;
            }
            Object value = make(entry.getValue(), property.type());
            if (property.setter != null) {
                property.setter.setAccessible(true);
                property.setter.invoke(made, value);
            } else {
                property.field.setAccessible(true);
                property.field.set(made, value);
            }
        }
        return made;
    }

    // --- to JSON -----------------------------------------------------------------------------------------------------

    /** The JSON text of a value. Throws IllegalArgumentException for what JSON cannot express. */
    static String text(Object value) throws ReflectiveOperationException {
        StringBuilder out = new StringBuilder();
        write(value, out, 0);
        return out.toString();
    }

    private static void write(Object value, StringBuilder out, int depth) throws ReflectiveOperationException {
        if (depth > DEPTH_MAX) {
            throw new IllegalArgumentException("more than " + DEPTH_MAX + " levels, or an object that contains itself");
        }
        if (value == null || value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof CharSequence || value instanceof Character) {
            Json.quote(value.toString(), out);
        } else if (value instanceof Number) {
            Json.number((Number) value, out);
        } else if (value instanceof Map) {
            writeMap((Map<?, ?>) value, out, depth);
        } else if (value instanceof Iterable) {
            char before = '[';
            for (Object item : (Iterable<?>) value) {
                out.append(before);
                write(item, out, depth + 1);
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else if (value instanceof byte[]) {
            Json.quote(Base64.getEncoder().encodeToString((byte[]) value), out);
        } else if (value.getClass().isArray()) {
            out.append('[');
            for (int i = 0; i < Array.getLength(value); i++) {
                out.append(i == 0 ? "" : ",");
                write(Array.get(value, i), out, depth + 1);
            }
            out.append(']');
        } else if (value instanceof Enum) {
            Json.quote(((Enum<?>) value).name(), out);
        } else if (value instanceof Date) {
            out.append(((Date) value).getTime());
        } else if (value instanceof Optional) {
            write(((Optional<?>) value).orElse(null), out, depth + 1);
        } else if (value.getClass().getName().startsWith("java.")) {
            Json.quote(value.toString(), out);
        } else {
            writeObject(value, out, depth);
        }
    }

    private static void writeMap(Map<?, ?> map, StringBuilder out, int depth) throws ReflectiveOperationException {
        char before = '{';
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            out.append(before);
            Json.quote(String.valueOf(entry.getKey()), out);
            out.append(':');
            write(entry.getValue(), out, depth + 1);
            before = ',';
        }
        out.append(before == '{' ? "{}" : "}");
    }

    private static void writeObject(Object value, StringBuilder out, int depth) throws ReflectiveOperationException {
        char before = '{';
        for (Property property : properties(value.getClass()).values()) {
            boolean open = property.field != null && Modifier.isPublic(property.field.getModifiers());
            if (property.getter == null && !open) {
                continue;
            }
            Object item;
            if (property.getter != null) {
                property.getter.setAccessible(true);
                item = property.getter.invoke(value);
            } else {
                property.field.setAccessible(true);
                item = property.field.get(value);
            }
            // What is not set is not there, as in the JSON of SCF's event classes.
            if (item == null) {
                continue;
            }
            out.append(before);
            Json.quote(property.name, out);
            out.append(':');
            write(item, out, depth + 1);
            before = ',';
        }
        out.append(before == '{' ? "{}" : "}");
    }
}
