package mayfly.runtime;

import com.qcloud.scf.runtime.Context;

/** What a handler gets as its context. Beside SCF's three methods it has those of other languages, for whoever knows this class. */
public final class FunctionContext implements Context {
    private final String requestId;
    private final int memoryLimitInMb;
    private final int timeLimitInMs;
    private final long deadlineMs;

    FunctionContext(String requestId, int memoryLimitInMb, int timeLimitInMs) {
        this.requestId = requestId;
        this.memoryLimitInMb = memoryLimitInMb;
        this.timeLimitInMs = timeLimitInMs;
        this.deadlineMs = System.currentTimeMillis() + timeLimitInMs;
    }

    public String getRequestId() {
        return requestId;
    }

    public int getTimeLimitInMs() {
        return timeLimitInMs;
    }

    public int getMemoryLimitInMb() {
        return memoryLimitInMb;
    }

    public int getRemainingTimeInMillis() {
        return (int) Math.max(0, deadlineMs - System.currentTimeMillis());
    }

    public String getFunctionName() {
        return System.getenv("SCF_FUNCTIONNAME");
    }

    public String getFunctionVersion() {
        return System.getenv("SCF_FUNCTIONVERSION");
    }

    public String getNamespace() {
        return System.getenv("SCF_NAMESPACE");
    }

    @Override
    public String toString() {
        return "Context{requestId=" + requestId + ", timeLimitInMs=" + timeLimitInMs + ", memoryLimitInMb=" + memoryLimitInMb + "}";
    }
}
