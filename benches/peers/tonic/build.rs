//! Service, written out here so that the build needs no `protoc`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let unary = |name: &str, route: &str, input: &str, output: &str| {
        let method = Method::builder().name(name).route_name(route).input_type(input).output_type(output);
        method.codec_path("tonic_prost::ProstCodec").build()
    };
    let stream = Method::builder()
        .name("stream")
        .route_name("Stream")
        .input_type("crate::messages::Envelope")
        .output_type("crate::messages::Envelope")
        .codec_path("tonic_prost::ProstCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let service = Service::builder()
        .package("peers")
        .name("Counter")
        .method(unary("call", "Call", "crate::messages::Request", "crate::messages::Number"))
        .method(unary("count", "Count", "crate::messages::Request", "crate::messages::Number"))
        .method(unary("echo", "Echo", "crate::messages::Blob", "crate::messages::Blob"))
        .method(unary("reply", "Reply", "crate::messages::Number", "crate::messages::Blob"))
        .method(unary("words", "Words", "crate::messages::Words", "crate::messages::Number"))
        .method(stream)
        .build();
    Builder::new().compile(&[service]);
}
