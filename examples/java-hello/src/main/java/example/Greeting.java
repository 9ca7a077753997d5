package example;

/** The event: an object with properties that have getters and setters. */
public class Greeting {
    private String name;

    public String getName() {
        return name;
    }

    public void setName(String name) {
        this.name = name;
    }
}
