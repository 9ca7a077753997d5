package example;

import com.qcloud.scf.runtime.Context;
import java.util.LinkedHashMap;
import java.util.Map;

public class Hello {
    /** State of the object is kept between calls of the same instance. */
    private int calls;

    public Map<String, Object> mainHandler(Greeting event, Context context) {
        calls += 1;
        String name = event.getName() == null ? "world" : event.getName();
        System.out.println("greeting " + name);
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("message", "Hello, " + name + "!");
        answer.put("java", System.getProperty("java.version"));
        answer.put("function", System.getenv("SCF_FUNCTIONNAME"));
        answer.put("version", System.getenv("SCF_FUNCTIONVERSION"));
        answer.put("request", context.getRequestId());
        answer.put("callsOfThisInstance", calls);
        return answer;
    }
}
