//! A name server for SRV records, within the test.

use std::net::UdpSocket;

/// Answers a question whose first label it knows with one record per port, and any other question
/// with "no such name". Returns the port of the server.
pub fn serve(records: Vec<(&'static str, Vec<u16>)>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            let label = &buffer[13..13 + usize::from(buffer[12])];
            let known = records.iter().find(|(name, _)| name.as_bytes() == label);
            let ports = known.map_or(&[][..], |(_, ports)| ports);
            (answer[2], answer[3]) = (0x81, if known.is_some() { 0x80 } else { 0x83 });
            answer[7] = u8::try_from(ports.len()).unwrap();
            for port in ports {
                // The owner is a pointer to the question's name; the target is 127.0.0.1, written
                // as a name.
                answer.extend([192, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 17, 0, 0, 0, 0]);
                answer.extend(port.to_be_bytes());
                answer.extend(b"\x03127\x010\x010\x011\0");
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    port
}
