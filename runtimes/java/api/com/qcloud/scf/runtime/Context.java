package com.qcloud.scf.runtime;

/** SCF's context, for packages that do not bring the interface themselves (com.tencentcloudapi:scf-java-events). */
public interface Context {
    String getRequestId();

    int getTimeLimitInMs();

    int getMemoryLimitInMb();
}
