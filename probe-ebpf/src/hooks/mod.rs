//! One hook per file, named after the hook.

mod cgroup_skb_egress;
mod cgroup_skb_ingress;
mod cgroup_sock_release;
mod empty;
mod forget;
mod give_back;
mod inet_csk_accept;
mod inet_sock_set_state;
mod iter_tcp;
mod tcp_destroy_sock;
mod tcp_reset;
