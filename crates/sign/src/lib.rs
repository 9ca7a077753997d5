//! Request signatures of the Tencent Cloud API (TC3-HMAC-SHA256 and the v1 form): making and verifying them. Pure.
