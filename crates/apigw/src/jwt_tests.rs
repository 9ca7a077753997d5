//! Tokens that another implementation (PyJWT) signed with keys of its own; they end in 2100.

use super::*;

const RSA_KEY: &str = r#"{"kty": "RSA", "n": "wKwcMM9F_U3d8tXzYTpNUwplwDK3GbOZXK-KzoacoOIBsITavpqubXX2P43wpsFSwYyjbVFZqxRaq-2OTOgGbcSFXzKRWtD82MNXfQ1_KJ-rPyLfbn60R0hPQTt8tgJEhMs0SPw_vpWFdAiKIYypiZ3lDlT5OdFRlyk_2N65TunqMzNxiZenBe9yaVn_G4hLCNB2JXU93mzgdN1NttSWM2O7cb4HXXxV2fHMgha-Y3ya0MfDrTIzUidRxqVivv4pnrTVfzD0eQPhZ2ZfSaKmFAb53-eQYmrYSJ3KES4vG--0E02j1k6GWfXlla_OAHfeOuHJnNlpTTvQNDUINGyRQw", "e": "AQAB"}"#;
const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.sbqtWeNofzvzwGtigBNofsYss78S82U9yWv_l2YAMq5RaK6q2_D_BREs0fcItsbSulBO5Buady-ffrZNaw3xlWKBJiZp_LNYJzSo3cr-vrja1b2qYcdtnRItcs0c9xQ8-0vd8Z8JU2cx7qLlzBWRhK2Y44iZfwNfQdBnU0Hddntb69dr1hxGSuJoNO7yDtygKwNPflAzoEIfMMgwiVgCPMKCq8zfh5HUyaxh-cS0KC0HIOcfhoUY8_b8o3OgwOeSSk65TyQSvI-9u8LHWZmV47Z6npOndweSCtbLrzZ9yuTWxUl4Zomif8AagQWEEW63hfpykwXgsDpoGHWX8RRg2g";
const PS256: &str = "eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.t8ItrORiSUVD9h50blbeYcVbYQ_0LtbXOX2UQrnOYQoFC207XsuiuBkY_PoeC71ioUQrpY_HXzLwCrQJ0RRs2Zob1u07PiwetYmloswPx3Glv88h_lvjhiWawcZs5R4R_YP2WcNqje8CO3ywYyodIbnAVwP17-YuzXzASpbjSn_qMNvCfFBBwBzSjOJUlUTAe_UEo4eO-baflnnIe9lFjx1v-zTvrZsfRt717FcqQAhacWkZWZnR6uCAL5fbH9nNc2Y-AuN7yJmUxxALAAB-nw1VkOTPRxy6pU8LhBX8qM-QQ01XhVRdWh1nHkPLv9EIxrOhT6m6pD6-JM9Y2c8rjg";
const ED_KEY: &str = r#"{"x": "xLGYtSGReXevC1I8EtgBQcHoYwjkhcXrzfAoBQrn6AQ", "kty": "OKP", "crv": "Ed25519"}"#;
const EDDSA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.cRFAjNNWeZd_3OWR4zflEfsjnhf0doYAGvD_Q5zol7oq_KTIFJjFrnUT35J9yLCCcK1NHGRg-hvBcd-FOo_VDw";
/// `HS256`, with the text of the public key as the secret.
const CONFUSED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.OBs-Fknb1aZZMibPQu5F3NqjrCkQ9pneyBm5ejiUass";

fn rules(public_key: &str, location: &str) -> TokenRules {
    TokenRules { public_key: public_key.into(), location: location.into(), login_url: String::new() }
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

#[test]
fn tokens_of_other_implementations_hold() {
    for (key, token) in [(RSA_KEY, RS256), (RSA_KEY, PS256), (ED_KEY, EDDSA)] {
        let claims = verify(&rules(key, "header"), &bearer(token), "").unwrap();
        assert_eq!(claims["sub"], "ada");
        let other = if key == RSA_KEY { ED_KEY } else { RSA_KEY };
        assert_eq!(verify(&rules(other, "header"), &bearer(token), "").unwrap_err().status, 403);
        // A byte of the claims is another.
        let forged = token.replacen(".eyJ", ".eyK", 1);
        assert_eq!(verify(&rules(key, "header"), &bearer(&forged), "").unwrap_err().status, 403);
    }
    let set = format!("{{\"keys\":[{ED_KEY},{RSA_KEY}]}}");
    assert!(verify(&rules(&set, "header"), &bearer(RS256), "").is_ok());
    assert_eq!(verify(&rules(RSA_KEY, "header"), &bearer(CONFUSED), "").unwrap_err().status, 403);
}

#[test]
fn tokens_are_where_they_are_said_to_be() {
    let none = HeaderMap::new();
    let query = format!("a=b&id_token={RS256}");
    assert!(verify(&rules(RSA_KEY, "query"), &none, &query).is_ok());
    assert!(verify(&rules(RSA_KEY, "query:t"), &none, &format!("t={RS256}")).is_ok());
    assert_eq!(verify(&rules(RSA_KEY, "header"), &none, &query).unwrap_err().status, 401);
    let cookie = HeaderMap::from_iter([(http::header::COOKIE, format!("a=b; id_token={RS256}").parse().unwrap())]);
    assert!(verify(&rules(RSA_KEY, "cookie"), &cookie, "").is_ok());
    let own = HeaderMap::from_iter([(http::HeaderName::from_static("x-token"), RS256.parse().unwrap())]);
    assert!(verify(&rules(RSA_KEY, "header:X-Token"), &own, "").is_ok());
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(verify(&rules(RSA_KEY, "header"), &bearer(&long), "").unwrap_err().status, 403);
}

#[test]
fn keys_are_public_and_usable() {
    for (key, location, part) in [
        ("no json", "header", "JSON"),
        ("{}", "header", "RSA"),
        (r#"{"kty":"oct","k":"AAAA"}"#, "header", "RSA"),
        (r#"{"keys":[]}"#, "header", "1 to 16"),
        (r#"{"keys":[],"iss":5}"#, "header", "iss"),
        (RSA_KEY, "body", "TokenLocation"),
        (RSA_KEY, "header:", "TokenLocation"),
    ] {
        let why = check_rules(&rules(key, location)).unwrap_err();
        assert!(why.contains(part), "{key} {location}: {why}");
    }
    assert!(check_rules(&rules(RSA_KEY, "")).is_ok());
}
