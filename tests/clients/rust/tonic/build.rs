//! The service of `web/apps/grpc/demo.proto`, without a `protoc`: its methods are told to the same generator.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::messages::Request")
            .output_type("crate::messages::Reply")
            .codec_path("tonic_prost::ProstCodec")
    };
    let demo = Service::builder()
        .name("Demo")
        .package("demo")
        .method(method("get", "Get").build())
        .method(method("list", "List").server_streaming().build())
        .method(method("sum", "Sum").client_streaming().build())
        .method(method("chat", "Chat").client_streaming().server_streaming().build())
        .method(method("fate", "Fate").build())
        .method(method("nothing", "Nothing").build())
        .build();
    Builder::new().compile(&[demo]);
}
