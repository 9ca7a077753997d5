//! Answers for the names of the platform's services, inside sandboxes: `scf.mayfly.internal`, and `<bucket>.cos.mayfly.internal` for any
//! bucket, which no hosts file can list. Everything else is refused at once, so that a resolver asks its next server.

use mayfly_sandbox::wire::{SERVICES, SERVICES_ADDRESS, SERVICES_DOMAIN};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

/// Longest question that is read, in bytes: that of DNS without extensions.
const QUESTION_BYTES_MAX: usize = 512;
/// How long an answer may be kept, in seconds. They never change.
const TTL_S: u32 = 300;

/// Answers until dropped.
pub async fn serve(socket: UdpSocket) {
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        // Errors are about answers that nobody took.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.try_send_to(&answer, peer);
        }
    }
}

/// The answer to a question; `None`: it is none.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok()?;
    if asked.has_flags(PacketFlag::RESPONSE) || asked.questions.len() != 1 {
        return None;
    }
    let question = &asked.questions[0];
    let mut reply = Packet::new_reply(asked.id());
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if is_ours(&question.qname.to_string()) {
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
        let wants_address = matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY)
            && matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        if wants_address {
            let address = RData::A(A { address: SERVICES_ADDRESS.into() });
            reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_S, address));
        }
    } else {
        *reply.rcode_mut() = RCODE::Refused;
    }
    reply.questions.push(question.clone());
    reply.build_bytes_vec().ok()
}

/// True for the domain, the services, and all below them.
fn is_ours(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let Some(before) = name.strip_suffix(SERVICES_DOMAIN) else { return false };
    match before.strip_suffix('.') {
        None => before.is_empty(),
        Some(labels) => labels.split('.').any(|label| SERVICES.contains(&label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{Name, Question};

    fn ask(name: &str, kind: TYPE) -> Packet<'static> {
        let mut packet = Packet::new_query(7);
        packet.questions.push(Question::new(
            Name::new(name).unwrap().into_owned(),
            kind.into(),
            CLASS::IN.into(),
            false,
        ));
        let bytes: &'static [u8] = Vec::leak(answer(&packet.build_bytes_vec().unwrap()).unwrap());
        let answered = Packet::parse(bytes).unwrap();
        assert_eq!((answered.id(), answered.questions.len()), (7, 1));
        answered
    }

    #[test]
    fn buckets_are_names_of_the_store() {
        for name in ["scf.mayfly.internal", "cos.mayfly.internal", "a.b-1.cos.mayfly.internal", "X.S3.Mayfly.Internal"]
        {
            let answered = ask(name, TYPE::A);
            assert_eq!(answered.rcode(), RCODE::NoError, "{name}");
            let RData::A(a) = &answered.answers[0].rdata else { panic!("{name}: no address") };
            assert_eq!(std::net::Ipv4Addr::from(a.address), SERVICES_ADDRESS);
        }
        let other = ask("photos.cos.ap-x.mayfly.internal", TYPE::AAAA);
        assert_eq!((other.rcode(), other.answers.len()), (RCODE::NoError, 0));
    }

    #[test]
    fn all_else_is_anothers() {
        for name in ["example.com", "mayfly.internal.example.com", "evilmayfly.internal", "nothing.mayfly.internal"] {
            let answered = ask(name, TYPE::A);
            assert_eq!((answered.rcode(), answered.answers.len()), (RCODE::Refused, 0), "{name}");
        }
        assert!(answer(b"").is_none() && answer(&[0xff; 512]).is_none());
        let reply = Packet::new_reply(1).build_bytes_vec().unwrap();
        assert!(answer(&reply).is_none(), "answers are not answered");
    }
}
