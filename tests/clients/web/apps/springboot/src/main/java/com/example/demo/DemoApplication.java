package com.example.demo;

import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.multipart.MultipartFile;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

/** Spring's quickstart, with an upload, a session and events. */
@SpringBootApplication
@RestController
public class DemoApplication {
  public static void main(String[] args) {
    SpringApplication.run(DemoApplication.class, args);
  }

  @GetMapping("/hello")
  public String hello(@RequestParam(value = "name", defaultValue = "World") String name) {
    return String.format("Hello %s!", name);
  }

  @PostMapping("/upload")
  public Map<String, Object> upload(@RequestParam("file") MultipartFile file) throws Exception {
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    try (InputStream in = file.getInputStream()) {
      byte[] part = new byte[65536];
      for (int n; (n = in.read(part)) > 0; ) digest.update(part, 0, n);
    }
    return Map.of("name", file.getOriginalFilename(), "n", file.getSize(), "sha256", HexFormat.of().formatHex(digest.digest()));
  }

  @GetMapping("/count")
  public int count(HttpSession session) {
    int n = session.getAttribute("n") instanceof Integer i ? i + 1 : 1;
    session.setAttribute("n", n);
    return n;
  }

  @GetMapping("/events")
  public SseEmitter events() {
    SseEmitter emitter = new SseEmitter();
    new Thread(() -> {
      try {
        for (int n = 0; n < 5; n++) {
          emitter.send(n);
          Thread.sleep(50);
        }
        emitter.complete();
      } catch (IOException | InterruptedException e) {
        emitter.completeWithError(e);
      }
    }).start();
    return emitter;
  }
}
