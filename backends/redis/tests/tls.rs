//! TLS: a server whose certificate holds is spoken to, one whose certificate does not is refused.

mod support;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use windlass_conformance::draft;
use windlass_core::{At, Backend, ErrorKind, Pushed};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::{Redis, free_port};

/// A root, and a server's certificate that it signed, for 127.0.0.1.
struct Certificates {
    root: String,
    certificate: String,
    key: String,
}

fn certificates() -> Certificates {
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().expect("a key");
    let signed = root.self_signed(&root_key).expect("a root");
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = server.signed_by(&key, &issuer).expect("a certificate");
    Certificates { root: signed.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

/// Whether the server that the environment names cannot do this at all. The machine's own is a package that can.
fn is_another_build_without_tls(error: &str) -> bool {
    std::env::var_os("WINDLASS_REDIS_SERVER").is_some()
        && (error.contains("Failed finding TLS support") || error.contains(">>> 'tls-port"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_hold_is_refused_and_one_that_does_is_spoken_to() {
    let ours = certificates();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", &ours.certificate), file("key.pem", &ours.key));
    let port = free_port().expect("a port").to_string();
    let started = Redis::start_with(&[
        ("tls-port", &port),
        ("tls-cert-file", &certificate),
        ("tls-key-file", &key),
        ("tls-auth-clients", "no"),
    ]);
    let server = match started {
        Err(error) if is_another_build_without_tls(&error.to_string()) => {
            eprintln!("not run: {error}");
            return;
        }
        started => started.expect("a private Redis with TLS"),
    };
    let url = format!("rediss://127.0.0.1:{port}");
    let trusting = |root: String| RedisOptions::new(&url).root_certificates(root);

    let backend = RedisBackend::connect_with(trusting(ours.root)).await.expect("it is trusted");
    assert_eq!(backend.push(&[draft().build()], At::Server).await.expect("push"), [Pushed::Inserted]);

    // Another root, the system's roots, and a root that is none.
    let error = RedisBackend::connect_with(trusting(certificates().root)).await.expect_err("another's root");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let error = RedisBackend::connect_with(RedisOptions::new(&url)).await.expect_err("nobody signed it");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    drop(server);
}
